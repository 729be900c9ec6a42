"""What a decoded inference request is."""

from collections.abc import Hashable
from typing import Any, NamedTuple

from nstarx.tensors import Tensors

Body = bytes | memoryview


class RequestedOutput(NamedTuple):
    """An output that the client asked for by name, and whether as binary data."""

    name: str
    binary: bool


class InferRequest:
    """A request whose inputs fit the signature.

    Every array of `inputs` is read-only, and those of binary tensors are views of the body: a model that changes its
    inputs in place copies them first, and the body must not change while the request lives.
    """

    __slots__ = ("binary", "group", "id", "inputs", "outputs", "parameters", "rows", "timeout_s")

    def __init__(self, inputs: Tensors, rows: int = 0, group: Hashable = None) -> None:
        self.inputs = inputs
        self.rows = rows
        """Size of the first dimension where the version is batchable (at least 1 then), else 0."""
        self.group = group
        """Requests of equal groups may be stacked; None never."""
        self.id: str | None = None
        """Echoed in the answer."""
        self.outputs: tuple[RequestedOutput, ...] | None = None
        """What the client asked for, in its order; None is every output."""
        self.binary = False
        """Whether outputs are binary data where `outputs` doesn't say."""
        self.parameters: dict[str, Any] = {}
        self.timeout_s: float | None = None
        """The client's own deadline, from the parameter `timeout` (microseconds, Triton's schedule policy)."""

    def is_plain(self) -> bool:
        """Whether its answer is every output as JSON, and nothing else."""
        return self.outputs is None and self.id is None and not self.binary
