"""Golden examples: compared in every mode, and a difference says where it is."""

from collections.abc import AsyncIterator
from typing import Any, Literal

import numpy as np
import pytest

from nstarx.errors import ModelLoadFailed
from nstarx.spec.model import ModelSpec
from nstarx.tensors import DTYPES, Tensors
from serving.golden import check_golden
from serving.runtimes.runtime import Runtime

pytestmark = pytest.mark.anyio

Mode = Literal["sync", "async", "stream"]


class Fixed(Runtime):
    """Gives the same answer to everything, row by row where it streams; keeps what it was given."""

    def __init__(self, answer: Any, mode: Mode = "sync") -> None:
        self.mode = mode
        self.answer = answer
        self.given: list[Tensors] = []

    def load(self) -> None: ...

    def infer(self, inputs: Tensors) -> Tensors:
        self.given.append(inputs)
        if isinstance(self.answer, Exception):
            raise self.answer
        return dict(self.answer)

    async def infer_async(self, inputs: Tensors) -> Tensors:
        return self.infer(inputs)

    async def infer_stream(self, inputs: Tensors) -> AsyncIterator[Tensors]:
        answer = self.infer(inputs)
        for row in range(len(answer["y"])):
            yield {name: array[row : row + 1] for name, array in answer.items()}


def spec(expected: Any, datatype: str = "FP32", **example: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "sample",
            "version": "1.0.0",
            "runtime": "python",
            "file": "model.py",
            "sha256": "0" * 64,
            "inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "y", "datatype": datatype, "shape": [-1]}],
            "golden": [{"inputs": {"x": ["é"]}, "outputs": {"y": expected}, **example}],
        }
    )


def answer(values: Any, datatype: str = "FP32") -> Tensors:
    return {"y": np.array(values, dtype=DTYPES[datatype])}


async def difference(spec: ModelSpec, runtime: Runtime) -> str:
    with pytest.raises(ModelLoadFailed) as caught:
        await check_golden(spec, runtime)
    return caught.value.sentence


@pytest.mark.parametrize("mode", ["sync", "async", "stream"])
async def test_the_right_answer_passes_in_every_mode_and_the_wrong_one_does_not(mode: Mode) -> None:
    await check_golden(spec([1.0, 2.0, 3.0]), Fixed(answer([1, 2, 3]), mode))
    wrong = await difference(spec([1.0, 2.0, 3.0]), Fixed(answer([1, 2.5, 4]), mode))
    assert wrong == "sample@1.0.0 can't be loaded: golden example 1: output 'y' at [1]: expected 2.0, got 2.5"


async def test_text_in_an_example_reaches_the_model_as_bytes() -> None:
    runtime = Fixed(answer([1.0]))
    await check_golden(spec([1.0]), runtime)
    assert runtime.given[0]["x"].tolist() == ["é".encode()]


async def test_floats_may_differ_by_the_tolerance_and_no_more() -> None:
    await check_golden(spec([100.0], tolerance=0.01), Fixed(answer([101.0])))
    assert "expected 100.0, got 102.0" in await difference(spec([100.0], tolerance=0.01), Fixed(answer([102.0])))


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP64"])
async def test_other_float_types_are_compared_with_the_tolerance_too(datatype: str) -> None:
    await check_golden(spec([1.0], datatype, tolerance=0.1), Fixed(answer([1.0625], datatype)))
    assert "got 1.25" in await difference(spec([1.0], datatype, tolerance=0.1), Fixed(answer([1.25], datatype)))


async def test_not_a_number_is_equal_to_itself() -> None:
    await check_golden(spec([float("nan")]), Fixed(answer([float("nan")])))


@pytest.mark.parametrize(
    ("datatype", "right", "wrong"),
    [("INT64", 10**15, 10**15 + 1), ("BOOL", True, False), ("BYTES", "é", "e")],
)
async def test_other_datatypes_are_compared_exactly(datatype: str, right: Any, wrong: Any) -> None:
    def encoded(value: Any) -> Any:
        return value.encode() if datatype == "BYTES" else value

    await check_golden(spec([right], datatype, tolerance=1.0), Fixed(answer([encoded(right)], datatype)))
    said = await difference(spec([right], datatype, tolerance=1.0), Fixed(answer([encoded(wrong)], datatype)))
    assert f"output 'y' at [0]: expected {encoded(right)}, got {encoded(wrong)}" in said


async def test_another_shape_or_datatype_and_a_missing_output_are_differences() -> None:
    assert "expected the shape [1], got [2]" in await difference(spec([1.0]), Fixed(answer([1, 1])))
    assert "expected FP32, got FP64" in await difference(spec([1.0]), Fixed(answer([1], "FP64")))
    assert "output 'y' is missing" in await difference(spec([1.0]), Fixed({}))


async def test_an_output_left_out_of_the_example_is_not_compared() -> None:
    runtime = Fixed(answer([5.0]))
    document = spec([1.0]).model_dump()
    document["golden"][0]["outputs"] = {}
    await check_golden(ModelSpec.model_validate(document), runtime)
    assert len(runtime.given) == 1


async def test_a_model_that_fails_on_its_example_says_how() -> None:
    said = await difference(spec([1.0]), Fixed(KeyError("lost")))
    assert said.endswith("golden example 1: KeyError: 'lost'")


async def test_an_example_that_does_not_fit_the_signature_is_named() -> None:
    said = await difference(spec(["text"]), Fixed(answer([1.0])))
    assert said.endswith("golden example 1: 'y' in model.yaml: ['text'] is not FP32")
