"""When what a shadow has shown begins anew."""

from typing import Any

import pytest

from judging.shadow_trial import trial_of
from nstarx.spec.route import RouteSpec
from nstarx.spec.shadow import ShadowSpec
from tests.judging.shadows import shadow

WEIGHTED = {"weighted": {"iris@1.0.0": 1.0}}


def trial(spec: ShadowSpec, resets: int = 0, split: dict[str, Any] = WEIGHTED, **parts: Any) -> str:
    return trial_of(RouteSpec.model_validate({"model": "iris", "split": split, **parts}), spec, resets)


@pytest.mark.parametrize(
    "change",
    [{"percent": 5}, {"max_in_flight": 1}, {"ready": {"min_compared": 7}}, {"key": {"header": "x-user"}}],
)
def test_more_or_fewer_pairs_and_other_limits_are_the_same_trial(change: dict[str, Any]) -> None:
    assert trial(ShadowSpec.model_validate({"version": "iris@1.1.0", **change})) == trial(shadow())


@pytest.mark.parametrize(
    "change",
    [
        {"tolerance": {"max_absolute": 1}},
        {"tolerances": {"label": {"classes": True}}},
        {"compare": False},
        {"timeout_s": 1},
        {"keep_payloads": True},
        {"redact": ["x"]},
        {"attributes": ["x-tenant"]},
    ],
)
def test_pairs_that_mean_something_else_are_another_trial(change: dict[str, Any]) -> None:
    assert trial(ShadowSpec.model_validate({"version": "iris@1.1.0", **change})) != trial(shadow())


def test_reset_and_other_versions_that_answer_begin_another_trial() -> None:
    assert trial(shadow(), resets=1) != trial(shadow())
    canary = {"canary": {"stable": "iris@1.0.0", "candidate": "iris@2.0.0", "percent": 0}}
    assert trial(shadow(), split=canary) == trial(shadow())
    canary["canary"]["percent"] = 10
    begun = trial(shadow(), split=canary)
    assert begun != trial(shadow())
    canary["canary"]["percent"] = 20
    assert trial(shadow(), split=canary, timeout_s=3) == begun
