"""`model.yaml`: what a model version is, what it takes and returns, and how it wants to run."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from nstarx.spec.quantity import Bytes
from nstarx.spec.record import Record
from nstarx.spec.version import Name, Semver, VersionRef
from nstarx.tensors import DTYPES

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, strict=False)]


class TensorSpec(Record):
    """One input or output: V2 name, datatype and shape, in which -1 is a dimension of any size."""

    name: Annotated[str, Field(min_length=1)]
    datatype: str
    shape: tuple[int, ...] = Field(strict=False)
    optional: bool = False
    """An input that may be left out of a request, or an output that may be missing from an answer."""
    allow_nan: bool = False
    """Whether NaN and infinities are values of this output; without it, an answer that holds one counts as invalid."""

    @field_validator("datatype")
    @classmethod
    def _known(cls, datatype: str) -> str:
        if datatype not in DTYPES:
            raise ValueError(f"'{datatype}' is not a V2 datatype; use one of {', '.join(DTYPES)}")
        return datatype

    @field_validator("shape")
    @classmethod
    def _dimensions(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if any(d < -1 for d in shape):
            raise ValueError("a dimension is a number of elements, or -1 for any")
        return shape


class Batching(Record):
    """How requests of many clients run as one. 1 means never."""

    max_batch_size: Count = 1
    """Rows (size of the first dimension) in one run, at the most."""
    max_wait_ms: Annotated[float, Field(ge=0, strict=False)] = 0.0
    """How long a run may wait for more rows; 0 batches only what has already arrived."""


class Resources(Record):
    """What one replica reserves. `gpu` above 0 makes ONNX Runtime use the GPU."""

    cpu: Annotated[float, Field(ge=0, strict=False)] = 1.0
    memory: Bytes = 0
    gpu: Annotated[float, Field(ge=0, strict=False)] = 0.0


class OnnxOptions(Record):
    """Options of ONNX Runtime for this version."""

    intra_op_threads: Count = 1
    graph_optimization: Literal["disabled", "basic", "extended", "all"] = "all"
    tensorrt: bool = False
    """Try TensorRT before CUDA where the replica has a GPU."""


class PythonOptions(Record):
    """Options of the Python runtime for this version."""

    class_name: str = "Model"
    requirements: tuple[str, ...] = Field(default=(), strict=False)
    """Packages for this version alone, in pip's words, installed by Ray's runtime environment."""


class Limits(Record):
    """Bounds on the work that one replica takes at a time."""

    max_queue_size: Count = 1024
    """Requests waiting or running; more are answered 503 at once."""
    max_concurrent_runs: Count = 1
    """Runs under way at a time. Async models profit from more than one."""
    hang_timeout_s: Seconds = 30.0
    """A run that takes longer than this makes the replica unhealthy, and it is replaced."""


class GoldenExample(Record):
    """Inputs and the answer expected for them: warms a replica up and is checked before it says ready."""

    inputs: dict[str, Any]
    """Name to nested list."""
    outputs: dict[str, Any]
    """Name to nested list; outputs left out aren't compared."""
    tolerance: Annotated[float, Field(ge=0, strict=False)] = 1e-4
    """Absolute and relative difference allowed for floating-point outputs."""


class ModelSpec(Record):
    """A whole `model.yaml`."""

    name: Name
    version: Semver
    runtime: Literal["onnx", "python"]
    file: str
    """The model file, in the same folder as `model.yaml`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of the file, checked at load."""
    inputs: tuple[TensorSpec, ...] = Field(min_length=1, strict=False)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1, strict=False)
    batching: Batching = Batching()
    resources: Resources = Resources()
    limits: Limits = Limits()
    onnx: OnnxOptions = OnnxOptions()
    python: PythonOptions = PythonOptions()
    settings: dict[str, Any] = {}
    """First settings of a Python model, given to its `reconfigure`; can be changed while it serves."""
    labels: dict[str, str] = {}
    description: str = ""
    golden: tuple[GoldenExample, ...] = Field(default=(), strict=False)

    @field_validator("file")
    @classmethod
    def _inside(cls, file: str) -> str:
        if "/" in file or "\\" in file or file in ("", ".", ".."):
            raise ValueError("is the name of a file beside model.yaml, without a folder")
        return file

    @model_validator(mode="after")
    def _names(self) -> Self:
        for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [tensor.name for tensor in tensors]
            if len(set(names)) < len(names):
                raise ValueError(f"{kind}: two tensors have the same name")
        for example in self.golden:
            unknown = set(example.inputs) - {t.name for t in self.inputs} | set(example.outputs) - {
                t.name for t in self.outputs
            }
            if unknown:
                raise ValueError(f"golden: {', '.join(sorted(unknown))} is not among the inputs and outputs")
        return self

    @property
    def ref(self) -> VersionRef:
        return VersionRef(self.name, self.version)

    @property
    def batchable(self) -> bool:
        """True when every tensor's first dimension is free, so that rows of many requests can share a run."""
        tensors = self.inputs + self.outputs
        return self.batching.max_batch_size > 1 and all(t.shape[:1] == (-1,) for t in tensors)
