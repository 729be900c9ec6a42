"""What a model version says about itself: V2 model metadata, and Triton's model configuration.

Sources: Open Inference Protocol V2 (model metadata), Triton's model configuration extension (`model_config.proto` as
JSON), which `tritonclient` and perf_analyzer read.
"""

from collections.abc import Sequence
from typing import Any

from nstarx.spec.model import ModelSpec, TensorSpec

_PLATFORMS = {"onnx": "onnxruntime_onnx", "python": "python"}
_BACKENDS = {"onnx": "onnxruntime", "python": "python"}


def model_metadata(spec: ModelSpec, versions: Sequence[str]) -> dict[str, Any]:
    """The answer to `GET /v2/models/{name}`; `versions` are all that are served, -1 is a dimension of any size."""
    return {
        "name": spec.name,
        "versions": list(versions),
        "platform": _PLATFORMS[spec.runtime],
        "inputs": [_metadata_tensor(tensor) for tensor in spec.inputs],
        "outputs": [_metadata_tensor(tensor) for tensor in spec.outputs],
    }


def model_config(spec: ModelSpec) -> dict[str, Any]:
    """The answer to `GET /v2/models/{name}/config`; without the batch dimension where the version is batchable."""
    config = {
        "name": spec.name,
        "platform": _PLATFORMS[spec.runtime],
        "backend": _BACKENDS[spec.runtime],
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": spec.batching.max_batch_size if spec.batchable else 0,
        "input": [
            _config_tensor(tensor, spec.batchable) | {"format": "FORMAT_NONE", "optional": tensor.optional}
            for tensor in spec.inputs
        ],
        "output": [_config_tensor(tensor, spec.batchable) for tensor in spec.outputs],
        "default_model_filename": spec.file,
    }
    if spec.batchable:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": round(spec.batching.max_wait_ms * 1000)}
    return config


def _metadata_tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _config_tensor(tensor: TensorSpec, batchable: bool) -> dict[str, Any]:
    return {
        "name": tensor.name,
        # model_config.proto has its own name for BYTES.
        "data_type": "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}",
        "dims": list(tensor.shape[1:] if batchable else tensor.shape),
    }
