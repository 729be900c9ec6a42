"""The samples of the repository: each loads, answers as it says, and misbehaves only as told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nstarx.errors import InvalidConfiguration
from nstarx.repository import Repository
from nstarx.spec.version import VersionRef
from nstarx.tensors import DTYPES, Tensor
from serving.runtimes.loading import load_runtime, open_runtime
from serving.runtimes.runtime import Runtime

SAMPLES = Repository(Path(__file__).parents[2] / "models")


def opened(ref: str) -> Runtime:
    return open_runtime(SAMPLES, VersionRef.parse(ref))[1]


def test_the_samples_are_all_there() -> None:
    refs = ["digits@1.0.0", "echo@1.0.0", "flaky@1.0.0", "flaky@1.1.0", "iris@1.0.0", "iris@1.1.0"]
    assert list(map(str, SAMPLES.refs())) == refs


@pytest.mark.anyio
@pytest.mark.parametrize("ref", SAMPLES.refs(), ids=str)
async def test_each_sample_passes_its_golden_examples(ref: VersionRef) -> None:
    spec, _ = await load_runtime(SAMPLES, ref)
    assert spec.golden


def test_the_two_iris_versions_agree_on_clear_cases_and_differ_in_detail() -> None:
    flowers = np.array([[5.1, 3.5, 1.4, 0.2], [6.6, 3.0, 4.4, 1.4], [6.7, 3.1, 5.6, 2.4]], np.float32)
    first, second = (opened(f"iris@{version}").infer({"x": flowers}) for version in ("1.0.0", "1.1.0"))
    assert first["label"].tolist() == second["label"].tolist() == [0, 1, 2]
    assert not np.allclose(first["probabilities"], second["probabilities"])


@pytest.mark.parametrize(("ref", "features"), [("iris@1.0.0", 4), ("iris@1.1.0", 4), ("digits@1.0.0", 64)])
def test_rows_of_a_batch_are_answered_as_they_are_alone(ref: str, features: int) -> None:
    runtime = opened(ref)
    rows = np.random.default_rng(7).uniform(0, 8, (5, features)).astype(np.float32)
    together = runtime.infer({"x": rows})
    for index in range(len(rows)):
        alone = runtime.infer({"x": rows[index : index + 1]})
        assert alone["label"][0] == together["label"][index]
        np.testing.assert_allclose(alone["probabilities"][0], together["probabilities"][index], rtol=1e-5, atol=1e-6)


def test_training_again_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    from models.train import main  # here, because it takes seconds and needs the extra `train`

    main(tmp_path / "once")
    main(tmp_path / "again")
    once, again = (Repository(tmp_path / name) for name in ("once", "again"))
    assert len(once.refs()) == 3
    assert [once.spec(ref) for ref in once.refs()] == [again.spec(ref) for ref in again.refs()]


def one_of_each_datatype() -> dict[str, Tensor]:
    numbers = {d.lower(): np.array([0, 1], dtype=dtype) for d, dtype in DTYPES.items() if d != "BYTES"}
    return numbers | {"bytes": np.array([b"", b"\xff"], dtype=object)}


@given(names=st.sets(st.sampled_from(sorted(one_of_each_datatype()))))
def test_echo_returns_whichever_it_was_given(names: set[str]) -> None:
    given_ = {name: array for name, array in one_of_each_datatype().items() if name in names}
    answer = ECHO.infer(given_)
    assert answer.keys() == names
    assert all(answer[name] is given_[name] for name in names)


ECHO = opened("echo@1.0.0")


def failures(runtime: Runtime, runs: int) -> list[bool]:
    """For each of so many runs, whether it failed."""
    return [fails(runtime) for _ in range(runs)]


def fails(runtime: Runtime) -> bool:
    try:
        runtime.infer({"x": np.ones(1, np.float32)})
    except RuntimeError:
        return True
    return False


def test_flaky_doubles_and_does_not_fail_until_told_to() -> None:
    flaky = opened("flaky@1.0.0")
    assert flaky.infer({"x": np.array([1, -2.5], np.float32)})["y"].tolist() == [2, -5]
    assert not any(failures(flaky, 100))


@pytest.mark.parametrize(("error_rate", "failed"), [(0.1, 100), (0.29, 290), (0.333, 333), (1.0, 1000), (1, 1000)])
def test_flaky_fails_exactly_as_often_as_told(error_rate: float, failed: int) -> None:
    flaky = opened("flaky@1.0.0")
    flaky.reconfigure({"error_rate": error_rate})
    assert sum(failures(flaky, 1000)) == failed


def test_flaky_spreads_its_failures_evenly() -> None:
    flaky = opened("flaky@1.0.0")
    flaky.reconfigure({"error_rate": 0.25})
    assert failures(flaky, 8) == [False, False, False, True] * 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"error_rat": 0.5}, "error_rat: is not a setting; use error_rate, hang, latency_ms"),
        ({"error_rate": 1.5}, "error_rate: 1.5 is not a number from 0 to 1"),
        ({"error_rate": True}, "error_rate: True is not a number"),
        ({"error_rate": float("nan")}, "error_rate: nan is not a number"),
        ({"latency_ms": -1}, "latency_ms: -1 is not a number of milliseconds"),
        ({"latency_ms": float("inf")}, "latency_ms: inf is not a number of milliseconds"),
        ({"latency_ms": "1"}, "latency_ms: '1' is not a number"),
        ({"hang": 1}, "hang: 1 is neither true nor false"),
    ],
)
def test_flaky_refuses_wrong_settings_and_stays_as_it_was(settings: dict[str, Any], sentence: str) -> None:
    flaky = opened("flaky@1.0.0")
    flaky.reconfigure({"error_rate": 0.5})
    assert failures(flaky, 1) == [False]
    with pytest.raises(InvalidConfiguration, match=sentence):
        flaky.reconfigure({"error_rate": 0.0} | settings)
    assert failures(flaky, 3) == [True, False, True]


def test_flaky_takes_the_time_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    flaky = opened("flaky@1.0.0")
    flaky.reconfigure({"latency_ms": 250})
    assert not fails(flaky)
    assert slept == [0.25]


def test_flaky_hangs_until_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = opened("flaky@1.0.0")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            flaky.reconfigure({})

    monkeypatch.setattr("time.sleep", sleep)
    flaky.reconfigure({"hang": True})
    assert not fails(flaky)
    assert len(waits) > 3
