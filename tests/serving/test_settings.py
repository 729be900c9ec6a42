"""Live settings: taken whole or refused whole."""

from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration, Unsupported
from nstarx.spec.model import ModelSpec
from serving.runtimes.runtime import Runtime
from serving.settings import apply_settings, differ
from tests.serving.doubles import Listener, Obedient, batcher, call, spec

pytestmark = pytest.mark.anyio


class Stubborn(Obedient):
    """Refuses every setting."""

    def reconfigure(self, settings: Any) -> None:
        raise InvalidConfiguration("threshold: must be a number")


async def sizes(settings: dict[str, Any], runtime: Obedient | None = None, model: ModelSpec | None = None) -> list[int]:
    """How large the batches of six calls are under these settings."""
    model, runtime, lane = model or spec(max_batch_size=3), runtime or Obedient(), Listener()
    batches = batcher(runtime, model)
    try:
        apply_settings(model, batches, runtime, settings, {})
    finally:
        batches.add([call(lane, id) for id in range(6)])
        await lane.heard(*range(6))
    return [len(run) for run in runtime.runs]


async def test_settings_of_the_model_reach_it_without_the_batching() -> None:
    runtime = Obedient()
    assert await sizes({"threshold": 0.5, "batching": {"max_batch_size": 2}}, runtime) == [2, 2, 2]
    assert runtime.reconfigured == [{"threshold": 0.5}]


async def test_batching_limits_that_are_not_given_stay_as_in_model_yaml() -> None:
    assert await sizes({"batching": {"max_wait_ms": 0}}) == [3, 3]
    assert await sizes({"batching": {}}) == [3, 3]
    assert await sizes({}) == [3, 3]


async def test_model_hears_only_of_what_changed_about_itself() -> None:
    runtime, model = Obedient(), spec()
    batches = batcher(runtime, model)
    before: dict[str, Any] = {"threshold": 0.5}
    after = {**before, "batching": {"max_batch_size": 2}}
    apply_settings(model, batches, runtime, after, before)
    assert runtime.reconfigured == []
    apply_settings(model, batches, runtime, {}, after)
    assert runtime.reconfigured == [{}], "what was taken away must go"


async def test_model_without_settings_of_its_own_takes_batching_and_nothing_else() -> None:
    model, runtime = spec(), Plain()
    batches = batcher(runtime, model)
    apply_settings(model, batches, runtime, {"batching": {"max_batch_size": 2}}, {})
    with pytest.raises(Unsupported, match="no live settings"):
        apply_settings(model, batches, runtime, {"threshold": 1}, {})


class Plain(Runtime):
    def load(self) -> None: ...


@pytest.mark.parametrize(
    ("batching", "sentence"),
    [
        ({"max_batch_size": 0}, "settings of sample@1.0.0: batching: max_batch_size: "),
        ({"max_batch_size": "2"}, "max_batch_size"),
        ({"max_batch_size": True}, "max_batch_size"),
        ({"max_wait_ms": -1}, "max_wait_ms"),
        ({"max_wait": 1}, "max_wait: unknown key"),
        (7, "batching: must be a mapping"),
        (None, "batching: must be a mapping"),
        ([["max_batch_size", 2]], "batching: must be a mapping"),
    ],
)
async def test_wrong_batching_is_named_and_changes_nothing(batching: Any, sentence: str) -> None:
    runtime = Obedient()
    with pytest.raises(InvalidConfiguration, match=sentence):
        await sizes({"threshold": 0.5, "batching": batching}, runtime)
    assert runtime.reconfigured == []
    assert [len(run) for run in runtime.runs] == [3, 3]


async def test_setting_that_the_model_refuses_leaves_the_batching_alone() -> None:
    runtime = Stubborn()
    with pytest.raises(InvalidConfiguration, match="threshold"):
        await sizes({"threshold": "high", "batching": {"max_batch_size": 2}}, runtime)
    assert [len(run) for run in runtime.runs] == [3, 3]


async def test_batching_of_a_version_that_was_loaded_without_is_refused_and_not_ignored() -> None:
    with pytest.raises(InvalidConfiguration, match="loaded without batching"):
        await sizes({"batching": {"max_batch_size": 8}}, model=spec(max_batch_size=1))
    assert await sizes({"batching": {"max_batch_size": 1}}, model=spec(max_batch_size=1)) == [1] * 6


def test_one_and_true_are_different_settings() -> None:
    assert differ({"hang": 1}, {"hang": True})
    assert differ({"rate": 1}, {"rate": 1.0})
    assert not differ({"rate": [1, {"a": None}]}, {"rate": [1, {"a": None}]})
