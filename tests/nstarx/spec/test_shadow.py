"""Shadows in a routes file."""

from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.key import KeySpec
from nstarx.spec.record import parse, parse_yaml
from nstarx.spec.route import RouteSpec
from nstarx.spec.shadow import ShadowSpec, ToleranceSpec

WHOLE = """
version: iris@1.1.0
percent: 25
key: {header: X-User}
timeout_s: 1
max_in_flight: 8
tolerances:
  label: {classes: true}
  probabilities: {max_absolute: 0.01}
  debug: {ignore: true}
tolerance: {max_relative: 1e-3}
examples: 5
keep_payloads: true
redact: [x]
attributes: [X-Tenant, user-agent]
ready: {min_compared: 200, max_mismatch_percent: 2, max_error_percent: 0.5, max_latency_ratio: null}
"""


def test_whole_shadow_reads_as_written() -> None:
    spec = parse(ShadowSpec, parse_yaml(WHOLE, "here"), "here")
    assert (spec.key, spec.timeout_s) == (KeySpec(header="x-user"), 1.0)
    assert (spec.percent, spec.max_in_flight, spec.examples, spec.redact) == (25, 8, 5, ("x",))
    assert spec.attributes == ("x-tenant", "user-agent")
    assert spec.tolerance_of("label").classes
    assert spec.tolerance_of("debug").ignore
    assert spec.tolerance_of("probabilities").bounds(floating=True) == (0.01, 0.0)
    assert spec.tolerance_of("anything else").bounds(floating=True) == (0.0, 1e-3)
    assert spec.ready.max_latency_ratio is None
    assert parse(ShadowSpec, spec.model_dump(mode="json"), "again") == spec


def test_least_that_can_be_said_keeps_no_payloads() -> None:
    spec = ShadowSpec(version="iris@1.1.0")
    assert (spec.percent, spec.compare, spec.examples, spec.keep_payloads) == (100.0, True, 10, False)


def test_without_bounds_floats_have_some_leeway_and_integers_none() -> None:
    assert ToleranceSpec().bounds(floating=True) == (1e-4, 1e-4)
    assert ToleranceSpec().bounds(floating=False) == (0.0, 0.0)


def test_one_bound_means_that_one_alone() -> None:
    assert ToleranceSpec(max_absolute=0).bounds(floating=True) == (0.0, 0.0)
    assert ToleranceSpec(max_absolute=2).bounds(floating=False) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"version": "iris"}, "version: 'iris' names no version"),
        ({"percent": 0}, "percent"),
        ({"percent": 100.5}, "percent"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"examples": 101}, "examples"),
        ({"percent": float("nan")}, "percent"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"tolerances": {"y": {"classes": True, "max_absolute": 1}}}, "tolerances.y: give one of"),
        ({"tolerances": {"y": {"classes": True, "ignore": True}}}, "give one of"),
        ({"tolerances": {"y": {"max_absolute": -1}}}, "tolerances.y.max_absolute"),
        ({"attributes": ["x tenant"]}, "'x tenant' is not the name of a header"),
        ({"attributes": ["X-Tenant", "x-tenant"]}, "x-tenant is named more than once"),
        ({"ready": {"max_mismatch_percent": 0}}, "ready.max_mismatch_percent"),
        ({"sample": 5}, "sample: unknown key"),
    ],
)
def test_mistake_is_named(change: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parse(ShadowSpec, {"version": "iris@1.1.0"} | change, "here")
    assert part in caught.value.sentence


def route(split: dict[str, Any], *shadows: str) -> RouteSpec:
    document = {"model": "iris", "split": split, "shadows": [{"version": shadow} for shadow in shadows]}
    return parse(RouteSpec, document, "here")


def test_version_that_may_answer_may_be_a_shadow_too() -> None:
    sides = {"blue_green": {"blue": "iris@1.0.0", "green": "iris@1.1.0"}}
    assert len(route(sides, "iris@1.1.0", "iris@1.0.0").shadows) == 2
    assert route(sides, "iris@2.0.0").versions == ("iris@1.0.0", "iris@1.1.0")


def test_shadow_given_twice_or_of_the_only_version_is_a_mistake() -> None:
    alone = {"weighted": {"iris@1.0.0": 1}}
    with pytest.raises(InvalidConfiguration, match=r"iris@1\.1\.0 is given more than once"):
        route(alone, "iris@1.1.0", "iris@1.1.0")
    with pytest.raises(InvalidConfiguration, match=r"can't be its own shadow"):
        route(alone, "iris@1.0.0")
