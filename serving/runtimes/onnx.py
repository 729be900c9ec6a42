"""The ONNX runtime: a model file run by ONNX Runtime, on the CPU or a GPU."""

from pathlib import Path

from nstarx.errors import ModelLoadFailed
from nstarx.spec.model import ModelSpec, TensorSpec
from nstarx.tensors import Tensors
from serving.runtimes.onnx_run import Run, runner
from serving.runtimes.onnx_session import open_for_reading, open_session
from serving.runtimes.onnx_signature import check_signature, read_signature
from serving.runtimes.runtime import Runtime


class OnnxRuntime(Runtime):
    """Runs the declared outputs of one ONNX file. BYTES are UTF-8 text; others raise InvalidTensor."""

    def __init__(self, spec: ModelSpec, file: Path) -> None:
        self._spec = spec
        self._file = file
        self._run: Run = _not_loaded

    def load(self) -> None:
        """Open the file and hold its signature against model.yaml. Raises ModelLoadFailed."""
        try:
            session = open_session(self._spec, self._file)
            check_signature(self._spec, session)
            self._run = runner(session, self._spec)
        except ValueError as error:
            raise ModelLoadFailed(str(self._spec.ref), str(error)) from None

    def infer(self, inputs: Tensors) -> Tensors:
        return self._run(inputs)

    def close(self) -> None:
        self._run = _not_loaded


def signature_of(file: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of an ONNX file; a dimension of any size is -1. Raises ModelLoadFailed."""
    try:
        return read_signature(open_for_reading(file))
    except ValueError as error:
        raise ModelLoadFailed(file.name, str(error)) from None


def _not_loaded(inputs: Tensors) -> Tensors:
    raise RuntimeError("the model is not loaded")
