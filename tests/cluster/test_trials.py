"""The life of experiments as the coordinator leads it, second by second."""

import json
from typing import Any

import numpy as np
import pytest

from cluster.events import EventKind
from cluster.experiments import ExperimentConflict, ExperimentNotFound, Exposed
from cluster.ledger import Entry
from cluster.trials import Trials
from judging.experiment import Recording, assignment_of
from nstarx.spec.experiment import InvalidOutcome, OutcomeRecord
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument
from nstarx.spec.trial import PLACES

OLD, NEW = "iris@1.0.0", "iris@1.1.0"
HALVES = {OLD: 1.0, NEW: 1.0}


def document(*experiments: dict[str, Any], names: tuple[str, ...] | None = None) -> RoutesDocument:
    """A route for each experiment, or for those that are named."""
    described = [described_as(**experiment) for experiment in experiments]
    names = tuple(experiment["name"] for experiment in described) if names is None else names
    routes = [{"model": f"model-{name}", "split": {"experiment": name}} for name in names]
    return parse(RoutesDocument, {"routes": routes, "experiments": described}, "test")


def described_as(**parts: Any) -> dict[str, Any]:
    return {
        "name": "label",
        "arms": HALVES,
        "control": OLD,
        "key": {"header": "x-user"},
        "primary": {"metric": "accepted", "kind": "binary", "direction": "increase"},
        **parts,
    }


class Story:
    """Trials, a clock that moves when told, and everything that was told and kept."""

    def __init__(self, *experiments: dict[str, Any]) -> None:
        self.now = 1000.0
        self.kept: list[Entry] = []
        self.trials = Trials(self.kept.append, np.random.default_rng(7))
        self.batches = 0
        self.apply(document(*experiments or ({},)))

    def apply(self, routes: RoutesDocument) -> list[EventKind]:
        self.trials.check(routes.experiments)
        return [told.kind for told in self.trials.follow(routes.experiments, routes.routes, self.now)]

    def start(self, name: str = "label") -> None:
        self.trials.start(name, self.now)

    def expose(self, assignments: dict[str, str], name: str = "label", weights: dict[str, float] = HALVES) -> None:
        started = self.trials.shown()[name].started
        self.batches += 1
        self.trials.hand_in("g1", self.batches, [Exposed(name, started, weights, assignments)])

    def report(self, *outcomes: tuple[str, float], name: str = "label") -> list[Recording]:
        records = [
            OutcomeRecord(assignment=assignment, metric="accepted", value=value) for assignment, value in outcomes
        ]
        return self.trials.record(name, records)

    def play(self, callers: int, rates: dict[str, int], first: int = 0) -> None:
        """So many callers of each arm, of whom so many of ten are content."""
        assignments = {f"{arm}-{number}": arm for number in range(first, first + callers) for arm in rates}
        self.expose(assignments)
        self.report(*((id, float(int(id.rpartition("-")[2]) % 10 < rates[arm])) for id, arm in assignments.items()))

    def tick(self, seconds: float = 1.0) -> list[tuple[EventKind, str]]:
        self.now += seconds
        return [(told.kind, told.sentence) for told in self.trials.tick(self.now)]

    def status(self, name: str = "label") -> Any:
        return self.trials.status(name, self.now)


def reborn(story: Story, entries: int = 0) -> Trials:
    """The next life: from a state, and entries that came after it."""
    trials = Trials()
    trials.restore(json.loads(json.dumps(story.trials.to_json())), story.kept[len(story.kept) - entries :])
    return trials


def test_an_experiment_from_its_start_to_a_winner() -> None:
    story = Story()
    assert story.status().state == "idle"
    story.start()
    assert (story.status().state, story.status().shares) == ("running", {OLD: 0.5, NEW: 0.5})
    story.play(20, {OLD: 3, NEW: 8})
    assert story.tick() == []
    story.play(200, {OLD: 3, NEW: 8}, first=20)
    [(kind, sentence)] = story.tick()
    assert kind == EventKind.EXPERIMENT_DECIDED
    assert sentence.startswith(f"experiment 'label' is decided: '{NEW}' wins: accepted is 0.5 higher")
    story.play(200, {OLD: 3, NEW: 8}, first=220)
    assert story.tick() == []
    status = story.status()
    assert (status.assigned, status.outcomes, status.result["winner"]) == (840, 840, NEW)


def test_decision_is_told_though_somebody_has_asked_for_the_verdict_before() -> None:
    story = Story()
    story.start()
    story.play(220, {OLD: 3, NEW: 8})
    story.now += 1
    assert story.status().result["winner"] == NEW
    [(kind, _)] = story.tick(0.1)
    assert kind == EventKind.EXPERIMENT_DECIDED
    assert story.tick() == []


def test_verdicts_are_made_once_a_second_at_the_most() -> None:
    story = Story()
    story.start()
    story.play(300, {OLD: 3, NEW: 8})
    story.tick(0.5)
    first = story.status().result
    story.play(300, {OLD: 3, NEW: 8}, first=300)
    story.tick(0.5)
    assert story.status().result == first
    story.tick(0.5)
    assert story.status().result != first


def test_a_broken_split_is_told_once_and_decides_nothing() -> None:
    story = Story()
    story.start()
    story.play(300, {NEW: 9})
    [(kind, sentence)] = story.tick()
    assert kind == EventKind.EXPERIMENT_SKEWED
    assert "not valid: the split is broken" in sentence
    story.play(300, {NEW: 9}, first=300)
    assert story.tick() == []
    assert story.status().result["valid"] is False


def test_outcomes_may_come_after_the_end_and_the_result_stays() -> None:
    story = Story()
    story.start()
    story.expose({"u1": OLD})
    told = story.trials.stop("label", story.now)
    assert told.kind == EventKind.EXPERIMENT_STOPPED
    assert story.report(("u1", 1.0), ("u2", 1.0)) == [Recording.COUNTED, Recording.WAITING]
    status = story.status()
    assert (status.state, status.outcomes, status.waiting) == ("stopped", 1, 1)


def test_a_new_start_forgets_and_falls_anew_and_late_outcomes_of_the_last_run_do_not_count() -> None:
    story = Story()
    story.start()
    former = story.trials.shown()["label"]
    story.expose({assignment_of(former.salt, "alice"): OLD})
    story.trials.stop("label", story.now)
    story.start()
    present = story.trials.shown()["label"]
    assert present.salt != former.salt
    story.trials.hand_in("g2", 1, [Exposed("label", former.started, HALVES, {"late": NEW})])
    story.expose({assignment_of(present.salt, "alice"): NEW})
    assert story.report((assignment_of(former.salt, "alice"), 1.0)) == [Recording.WAITING]
    [recording] = story.trials.record("label", [OutcomeRecord(key="alice", metric="accepted", value=1)])
    assert recording is Recording.COUNTED
    assert story.status().assigned == 1


def test_a_batch_that_is_handed_in_again_changes_nothing() -> None:
    story = Story()
    story.start()
    started = story.trials.shown()["label"].started
    for _ in range(3):
        story.trials.hand_in("g1", 5, [Exposed("label", started, HALVES, {"u1": OLD})])
    assert len(story.kept) == 2
    assert story.status().assigned == 1


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (OutcomeRecord(assignment="u", metric="accepted", value=0.5), "outcomes.1: metric 'accepted' is binary"),
        (OutcomeRecord(assignment="u", metric="revenue", value=1), "outcomes.1: 'label' measures no 'revenue'"),
    ],
)
def test_one_wrong_outcome_makes_none_count(outcome: OutcomeRecord, sentence: str) -> None:
    story = Story()
    story.start()
    story.expose({"u": OLD})
    with pytest.raises(InvalidOutcome, match=sentence):
        story.trials.record("label", [OutcomeRecord(assignment="u", metric="accepted", value=1), outcome])
    assert story.status().outcomes == 0


def test_what_cannot_be_is_refused_with_the_reason() -> None:
    story = Story()
    with pytest.raises(ExperimentNotFound, match="no experiment 'labels'; there are: label"):
        story.start("labels")
    with pytest.raises(ExperimentConflict, match="never been started"):
        story.report(("u1", 1.0))
    with pytest.raises(ExperimentConflict, match="not running"):
        story.trials.stop("label", story.now)
    story.start()
    with pytest.raises(ExperimentConflict, match="running already"):
        story.start()
    story.apply(document({}, names=()))
    with pytest.raises(ExperimentConflict, match=r"no route names experiment 'label'.*\{experiment: label\}"):
        story.start()


def test_weights_change_while_it_runs_and_nothing_else_does() -> None:
    story = Story()
    story.start()
    assert story.apply(document({"arms": {OLD: 9, NEW: 1}, "max_duration_s": 60})) == []
    assert story.status().shares == {OLD: 0.9, NEW: 0.1}
    for parts in ({"alpha": 0.1}, {"arms": {OLD: 1, "iris@2.0.0": 1}}, {"key": None}, {"holdout_percent": 1}):
        with pytest.raises(ExperimentConflict, match="running, and meanwhile only its weights"):
            story.apply(document(parts))
    story.trials.stop("label", story.now)
    story.apply(document({"alpha": 0.1}))


def test_an_experiment_that_no_route_names_any_more_is_stopped_and_can_still_be_read() -> None:
    story = Story()
    story.start()
    story.play(300, {OLD: 3, NEW: 8})
    assert story.apply(document(names=())) == [EventKind.EXPERIMENT_STOPPED]
    status = story.status()
    assert (status.state, status.result["winner"]) == ("removed", NEW)
    assert [status.name for status in story.trials.statuses(story.now)] == ["label"]
    assert story.report((f"{OLD}-1", 1.0)) == [Recording.DUPLICATE]


def test_a_file_that_changes_what_runs_stops_it() -> None:
    """As when a cluster comes up again with another file: nobody is there to be refused."""
    story = Story()
    story.start()
    changed = document({"alpha": 0.1})
    [told] = story.trials.follow(changed.experiments, changed.routes, story.now)
    assert "its configuration has changed what it compares" in told.sentence


GROUP = {"name": "shop", "share_percent": 40}


def test_experiments_of_a_group_have_places_of_their_own() -> None:
    story = Story({"name": "a", "group": GROUP}, {"name": "b", "group": {**GROUP, "share_percent": 60}})
    story.start("b")
    story.start("a")
    assert story.trials.shown()["b"].places == ((0, 600_000),)
    assert story.trials.shown()["a"].places == ((600_000, PLACES),)
    story.trials.stop("b", story.now)
    story.apply(
        document(
            *({"name": name, "group": {**GROUP, "share_percent": 30}} for name in "bc"), {"name": "a", "group": GROUP}
        )
    )
    story.start("c")
    story.start("b")
    assert story.trials.shown()["c"].places == ((0, 300_000),)
    assert story.trials.shown()["b"].places == ((300_000, 600_000),)


def test_a_group_without_callers_left_starts_nobody() -> None:
    story = Story({"name": "a", "group": {**GROUP, "share_percent": 100}})
    story.start("a")
    story.trials.follow(*_with(story, {"name": "b", "group": GROUP}), story.now)
    with pytest.raises(ExperimentConflict, match=r"has 0 % of its callers left, and 'b' needs 40 %"):
        story.start("b")


def _with(story: Story, other: dict[str, Any]) -> tuple[Any, Any]:
    """What is configured, and one more: together too much for a document, but not for what runs already."""
    running = story.trials.shown()["a"].experiment
    more = document(other)
    return (running, *more.experiments), (
        *document({"name": "a", "group": {**GROUP, "share_percent": 100}}).routes,
        *more.routes,
    )


BANDIT = {"bandit": {"enabled": True, "floor_percent": 10, "interval_s": 10}}


def test_a_bandit_moves_weight_to_the_better_arm_and_keeps_the_floor() -> None:
    story = Story(BANDIT)
    story.start()
    story.play(50, {OLD: 2, NEW: 9})
    assert EventKind.WEIGHTS_CHANGED not in [kind for kind, _ in story.tick(9)]
    told = story.tick(1)
    assert (EventKind.WEIGHTS_CHANGED, f"experiment 'label' moves weight: {OLD} 10 %, {NEW} 90 %") in told
    assert story.status().shares == {OLD: 0.1, NEW: 0.9}
    assert EventKind.WEIGHTS_CHANGED not in [kind for kind, _ in story.tick(10)]


def test_a_bandit_stands_still_where_the_split_is_broken() -> None:
    story = Story(BANDIT)
    story.start()
    story.play(300, {NEW: 9})
    story.tick(1)
    story.play(10, {NEW: 9}, first=300)
    story.tick(20)
    assert story.status().shares == {OLD: 0.5, NEW: 0.5}


@pytest.mark.parametrize("entries", [0, 1, 2])
def test_the_next_life_goes_on_where_the_last_one_ended(entries: int) -> None:
    story = Story(BANDIT)
    story.start()
    story.play(300, {OLD: 3, NEW: 8})
    story.tick(20)
    story.report(("overtaking", 1.0))
    second = reborn(story, entries)
    second.follow(*_configured(), story.now)
    assert second.shown() == story.trials.shown()
    assert second.to_json() == story.trials.to_json()
    assert second.status("label", story.now).result == story.status().result
    second.hand_in("g1", story.batches, [Exposed("label", 1000.0, HALVES, {"again": OLD})])
    assert second.to_json() == story.trials.to_json()


def _configured() -> tuple[Any, Any]:
    routes = document(BANDIT)
    return routes.experiments, routes.routes


def test_entries_alone_make_the_same_state() -> None:
    story = Story()
    story.start()
    story.play(30, {OLD: 3, NEW: 8})
    story.trials.stop("label", story.now)
    second = Trials()
    second.restore(None, json.loads(json.dumps(story.kept)))
    assert second.to_json() == story.trials.to_json()


def test_keys_of_callers_are_not_kept() -> None:
    story = Story()
    story.start()
    story.trials.record("label", [OutcomeRecord(key="alice@example.com", metric="accepted", value=1)])
    assert "alice" not in json.dumps(story.kept) + json.dumps(story.trials.to_json())
    second = Trials()
    second.restore(None, json.loads(json.dumps(story.kept)))
    assert second.to_json() == story.trials.to_json()


def test_of_two_memories_of_a_run_the_newer_counts() -> None:
    story = Story()
    story.start()
    story.play(30, {OLD: 3, NEW: 8})
    held = story.trials.shown()["label"]
    newer = held.model_copy(update={"weights": {OLD: 1.0, NEW: 3.0}, "changed": story.now + 1})
    story.trials.adopt({"label": newer})
    assert story.status().shares == {OLD: 0.25, NEW: 0.75}
    story.trials.adopt({"label": held})
    assert story.status().shares == {OLD: 0.25, NEW: 0.75}
    assert story.status().assigned == 60


def test_without_its_memory_a_run_goes_on_by_what_gateways_hold() -> None:
    story = Story()
    story.start()
    second = Story()
    second.trials.adopt(story.trials.shown())
    assert (second.status().state, second.status().started) == ("running", 1000.0)


def test_removed_experiments_are_forgotten_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.trials.REMEMBERED_TRIALS", 2)
    names = [f"label-{number}" for number in range(5)]
    story = Story(*({"name": name} for name in names))
    for name in names:
        story.start(name)
        story.now += 1
    story.apply(document({"name": "other"}))
    story.start("other")
    assert [status.name for status in story.trials.statuses(story.now)] == ["other", "label-3", "label-4"]
    second = Trials()
    second.restore(None, story.kept)
    assert second.to_json() == story.trials.to_json()
