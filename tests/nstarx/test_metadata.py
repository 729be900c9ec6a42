"""What a version says about itself, to V2 clients and to Triton's."""

from typing import Any

import pytest

from nstarx.metadata import model_config, model_metadata
from nstarx.spec.model import ModelSpec


def spec(**more: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "iris",
            "version": "1.2.0",
            "runtime": "onnx",
            "file": "model.onnx",
            "sha256": "0" * 64,
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
                {"name": "note", "datatype": "BYTES", "shape": [-1], "optional": True},
            ],
            "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
            **more,
        }
    )


def test_metadata() -> None:
    assert model_metadata(spec(), ["1.2.0", "1.3.0"]) == {
        "name": "iris",
        "versions": ["1.2.0", "1.3.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
            {"name": "note", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
    }


def test_config_of_a_version_that_does_not_batch_has_whole_shapes() -> None:
    assert model_config(spec()) == {
        "name": "iris",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [
            {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4], "format": "FORMAT_NONE", "optional": False},
            {"name": "note", "data_type": "TYPE_STRING", "dims": [-1], "format": "FORMAT_NONE", "optional": True},
        ],
        "output": [{"name": "label", "data_type": "TYPE_INT64", "dims": [-1]}],
        "default_model_filename": "model.onnx",
    }


def test_config_of_a_version_that_batches_leaves_out_the_batch_dimension() -> None:
    config = model_config(spec(batching={"max_batch_size": 32, "max_wait_ms": 2.5}))
    assert config["max_batch_size"] == 32
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 2500}
    assert [tensor["dims"] for tensor in config["input"] + config["output"]] == [[4], [], []]


@pytest.mark.parametrize(("runtime", "platform"), [("onnx", "onnxruntime_onnx"), ("python", "python")])
def test_metadata_and_config_name_the_same_platform(runtime: str, platform: str) -> None:
    version = spec(runtime=runtime)
    assert model_metadata(version, [])["platform"] == model_config(version)["platform"] == platform
