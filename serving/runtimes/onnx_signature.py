"""What an ONNX file takes and returns, and whether a model.yaml says the same."""

from collections.abc import Iterable
from typing import Any

from nstarx.spec.model import ModelSpec, TensorSpec

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
"""ONNX Runtime's type names to V2 datatypes."""


def read_signature(session: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of a session's file. Raises ValueError that names a value which isn't a V2 tensor.

    ONNX Runtime reports a value of unknown rank like a scalar, so the shape () means either.
    """
    return (
        tuple(_tensor("input", node) for node in session.get_inputs()),
        tuple(_tensor("output", node) for node in session.get_outputs()),
    )


def check_signature(spec: ModelSpec, session: Any) -> None:
    """Raises ValueError that names the first tensor in which model.yaml differs from a session's file."""
    inputs, outputs = {node.name: node for node in session.get_inputs()}, {n.name: n for n in session.get_outputs()}
    # An initializer that is also a graph input has a default value: a client may leave it out.
    defaults = {node.name: node for node in session.get_overridable_initializers()}
    for tensor in spec.inputs:
        found = _find("input", tensor, inputs | defaults)
        _check_input(tensor, found, has_default=tensor.name in defaults)
    for tensor in spec.outputs:
        _check_output(tensor, _find("output", tensor, outputs))
    undeclared = inputs.keys() - {tensor.name for tensor in spec.inputs}
    if undeclared:
        raise ValueError(f"the file needs {_quoted(undeclared)} too; declare it among the inputs of model.yaml")


def _tensor(kind: str, node: Any) -> TensorSpec:
    if node.type not in DATATYPES:
        raise ValueError(f"{kind} '{node.name}' is {node.type}, which V2 has no datatype for; {_advice(node)}")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(name=node.name, datatype=DATATYPES[node.type], shape=shape)


def _advice(node: Any) -> str:
    return "export the model with zipmap off" if "map(" in node.type else "export the model with another type"


def _find(kind: str, tensor: TensorSpec, nodes: dict[str, Any]) -> TensorSpec:
    if tensor.name not in nodes:
        raise ValueError(f"{kind} '{tensor.name}' of model.yaml is not in the file, which has {_quoted(nodes)}")
    found = _tensor(kind, nodes[tensor.name])
    if found.datatype != tensor.datatype:
        raise ValueError(f"{kind} '{tensor.name}' is {found.datatype} in the file, {tensor.datatype} in model.yaml")
    if found.shape and len(found.shape) != len(tensor.shape):
        raise _differs(kind, tensor, found)
    return found


def _check_input(tensor: TensorSpec, found: TensorSpec, has_default: bool) -> None:
    # model.yaml may narrow what the file takes, but not promise more.
    if any(real not in (-1, said) for real, said in zip(found.shape, tensor.shape, strict=False)):
        raise _differs("input", tensor, found)
    if tensor.optional and not has_default:
        raise ValueError(f"input '{tensor.name}' is optional in model.yaml, but the file has no default for it")


def _check_output(tensor: TensorSpec, found: TensorSpec) -> None:
    # What the exporter left open is often known to whoever wrote model.yaml.
    if any(-1 not in (real, said) and real != said for real, said in zip(found.shape, tensor.shape, strict=False)):
        raise _differs("output", tensor, found)


def _differs(kind: str, tensor: TensorSpec, found: TensorSpec) -> ValueError:
    shapes = f"{list(found.shape)} in the file, {list(tensor.shape)} in model.yaml"
    return ValueError(f"{kind} '{tensor.name}' has the shape {shapes}")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
