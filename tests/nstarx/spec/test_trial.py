"""Splits by experiment: what a route is while one runs, and what a document of both may say."""

import pickle
from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.cluster import ClusterSpec, GatewayArgs
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument, RouteSpec
from nstarx.spec.split import SplitSpec
from nstarx.spec.trial import PLACES, Trial
from router.cohort import UNITS

OLD, NEW, ODD = "iris@1.0.0", "iris@1.1.0", "iris@1.2.0"


def experiment(**parts: Any) -> dict[str, Any]:
    return {
        "name": "label",
        "arms": {NEW: 3, OLD: 1, ODD: 0},
        "control": OLD,
        "primary": {"metric": "accepted", "kind": "binary", "direction": "increase"},
        **parts,
    }


def document(route: dict[str, Any] | None = None, *experiments: dict[str, Any]) -> dict[str, Any]:
    split = {"split": {"experiment": "label"}}
    return {"routes": [{"model": "iris", **(route or split)}], "experiments": list(experiments) or [experiment()]}


def routes(*arguments: Any) -> RoutesDocument:
    return parse(RoutesDocument, document(*arguments), "test")


def trial(**parts: Any) -> Trial:
    [spec] = routes().experiments
    return Trial(experiment=spec, started=1.0, changed=1.0, weights={NEW: 30.0, OLD: 70.0}, **parts)


def bound(**trials: Trial) -> SplitSpec:
    [route] = routes().bound(trials)
    return route.split


def test_before_and_after_the_control_has_everything_and_the_arms_stay_known() -> None:
    for split in (bound(), bound(label=trial(stopped=2.0))):
        assert split.weights == {OLD: 1.0, NEW: 0.0, ODD: 0.0}
        assert next(iter(split.weights)) == OLD
        assert split.trial is None


def test_while_it_runs_its_weights_are_in_force() -> None:
    split = bound(label=trial())
    assert split.weights == {OLD: 70.0, NEW: 30.0}
    assert split.trial == trial()
    assert (split.stable, split.candidates) == (OLD, (NEW,))
    assert (split.role(OLD), split.role(NEW)) == ("control", "arm")


def test_what_a_split_knows_travels_and_is_not_written_into_files() -> None:
    [route] = routes().bound({"label": trial()})
    assert pickle.loads(pickle.dumps(route)) == route
    assert route != routes().routes[0]
    assert route.model_dump() == routes().routes[0].model_dump()
    assert route.versions == (OLD, NEW)


def test_rules_may_be_divided_by_experiment_too() -> None:
    rule = {"name": "testers", "match": {}, "split": {"experiment": "label"}}
    [route] = routes({"rules": [rule], "split": {"weighted": {OLD: 1}}}).bound({"label": trial()})
    assert route.experiments == ("label",)
    assert route.rules[0].split.weights == {OLD: 70.0, NEW: 30.0}
    assert route.split.weights == {OLD: 1}


def test_a_route_without_experiments_is_left_as_it_is() -> None:
    found = routes({"split": {"weighted": {OLD: 1}}})
    assert found.bound({"label": trial()})[0] is found.routes[0]


def test_a_split_that_does_not_know_its_experiment_has_no_versions() -> None:
    split = SplitSpec(experiment="label")
    assert (split.weights, split.stable, split.candidates) == ({}, None, ())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (({"split": {"experiment": "colour"}},), "iris names the experiment 'colour', which is not in experiments"),
        (
            (None, experiment(arms={"old": 1, "new": 1}, control="old")),
            r"versions like iris@1\.2\.0, not labels like 'old'",
        ),
        (
            ({"split": {"experiment": "label", "sticky": {"header": "x"}}},),
            "sticky: an experiment has a key of its own",
        ),
        (({"split": {"experiment": "label", "weighted": {OLD: 1}}},), "given: weighted, experiment"),
        ((None, experiment(), experiment()), "label is given more than once"),
        ((None, experiment(group={"name": "shop", "share_percent": 1})), "key: experiments of a group need one"),
        (
            (
                None,
                experiment(group={"name": "shop", "share_percent": 1}, key={"header": "x-user"}),
                experiment(name="b", group={"name": "shop", "share_percent": 1}, key={"header": "x-session"}),
            ),
            "those of group shop need the same key",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(InvalidConfiguration, match=sentence):
        routes(*arguments)
    for record in (ClusterSpec, GatewayArgs):
        with pytest.raises(InvalidConfiguration, match=sentence):
            parse(record, document(*arguments), "test")


def test_an_experiment_that_no_route_names_may_have_labels() -> None:
    labelled = experiment(name="elsewhere", arms={"old": 1, "new": 1}, control="old")
    assert len(routes(None, experiment(), labelled).experiments) == 2


def test_a_configuration_file_hands_its_experiments_to_the_gateways() -> None:
    spec = parse(ClusterSpec, document(), "test")
    args = parse(GatewayArgs, spec.gateway_args(), "test")
    assert args.document() == routes()
    assert "experiments" not in parse(ClusterSpec, {}, "test").gateway_args()


def test_a_state_folder_has_to_be_absolute() -> None:
    with pytest.raises(InvalidConfiguration, match=r"gateway\.state_dir: 'state' must be an absolute path"):
        parse(ClusterSpec, {"gateway": {"state_dir": "state"}}, "test")


def test_places_are_counted_as_the_gateway_counts_them() -> None:
    assert PLACES == UNITS


def test_routes_of_their_own_are_bound_by_rule_and_split() -> None:
    route = RouteSpec.model_validate(document()["routes"][0])
    assert route.experiments == ("label",)
