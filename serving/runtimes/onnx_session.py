"""Opening an ONNX Runtime session: providers, options, and a plain sentence when the file can't be read."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnxruntime as ort  # type: ignore[import-untyped]

from nstarx.spec.model import ModelSpec

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
FATAL = 4
PREAMBLE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|\S+\.(?:cc|h):\d+ (?:.*?\) )?")
"""What ONNX Runtime puts before its own sentence: a code, the path, and the C++ function."""
NEW_OPSET = re.compile(r"(Opset \d+) .* domain \S+ is till (opset \d+)", re.DOTALL)
NEW_FORMAT = re.compile(r"model (IR version: \d+), max supported (IR version: \d+)")


def open_session(spec: ModelSpec, file: Path) -> Any:
    """A session ready to run. Raises ValueError with a sentence about the file or the GPU."""
    wanted = choose_providers(spec, ort.get_available_providers())
    session = _open(file, session_options(spec), wanted)
    # ONNX Runtime goes on without a provider that fails to start, and a GPU would be paid for and not used.
    if session.get_providers()[0] == CPU != wanted[0]:
        raise ValueError(f"{wanted[0]} didn't start; check the GPU's driver and the CUDA and cuDNN libraries")
    return session


def open_for_reading(file: Path) -> Any:
    """A session only to ask about the file's signature. Raises ValueError with a sentence about the file."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS["disabled"]
    options.log_severity_level = FATAL
    return _open(file, options, [CPU])


def choose_providers(spec: ModelSpec, available: Collection[str]) -> list[str]:
    """ONNX Runtime's providers in the order to try. Raises ValueError when a GPU is wanted and none can be used."""
    if not spec.resources.gpu:
        return [CPU]
    wanted = [TENSORRT, CUDA] if spec.onnx.tensorrt else [CUDA]
    usable = [provider for provider in wanted if provider in available]
    if not usable:
        raise ValueError("it asks for a GPU, but this ONNX Runtime has no GPU provider; install nstarx[gpu]")
    return [*usable, CPU]


def session_options(spec: ModelSpec) -> Any:
    """Options for many small replicas on one host."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = spec.onnx.intra_op_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = LEVELS[spec.onnx.graph_optimization]
    # A spinning thread takes the core that the next replica needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena and the memory plans keep the peak of every batch size: a small convolutional network held 400 MiB
    # after a few batches with them and 6 MiB without, at the same speed for small models and 10 % less for large ones.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Every error is raised too.
    options.log_severity_level = FATAL
    return options


def _open(file: Path, options: Any, providers: list[str]) -> Any:
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    try:
        return ort.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no class of their own
        raise ValueError(_sentence(file, error)) from None


def _sentence(file: Path, error: Exception) -> str:
    size = file.stat().st_size
    if not size:
        return f"{file.name} is empty"
    if type(error).__name__ == "InvalidProtobuf":
        return f"{file.name} ({size} bytes) is not an ONNX model, or was cut short; export or copy it again"
    return _too_new(str(error)) or f"{file.name}: {PREAMBLE.sub('', str(error)).strip()}"


def _too_new(message: str) -> str | None:
    match = NEW_OPSET.search(message) or NEW_FORMAT.search(message)
    if not match:
        return None
    return (
        f"it needs {match[1]}, and ONNX Runtime {ort.__version__} knows up to {match[2]}; "
        "export it for an older one, or upgrade onnxruntime"
    )
