"""Records that the tests of this folder speak of, and a clock that stands still until told."""

from dataclasses import dataclass

from cluster.records import ReplicaRecord
from nstarx.spec.model import ModelSpec
from nstarx.spec.route import RoutesDocument
from nstarx.spec.version import VersionRef

TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def spec(ref: str = "iris@1.0.0", **parts: object) -> ModelSpec:
    name, version = VersionRef.parse(ref)
    document = {"name": name, "version": version, "runtime": "python", "file": "model.py", "sha256": "0" * 64}
    return ModelSpec.model_validate({**document, "inputs": [TENSOR], "outputs": [TENSOR], **parts})


def replica(name: str, ref: str = "iris@1.0.0") -> ReplicaRecord:
    return ReplicaRecord(replica=name, ref=ref, node="n1", addresses=(f"unix:/run/{name}", "tcp:10.0.0.1:4000"))


def routes(**weighted: dict[str, float]) -> RoutesDocument:
    """`routes(iris={"iris@1.0.0": 1})`: one weighted route per model."""
    return RoutesDocument.model_validate(
        {"routes": [{"model": model, "split": {"weighted": weights}} for model, weights in weighted.items()]}
    )


IRIS = routes(iris={"iris@1.0.0": 1})
IRIS_BOTH = routes(iris={"iris@1.0.0": 9, "iris@2.0.0": 1})
LABEL = RoutesDocument.model_validate(
    {
        "routes": [{"model": "iris", "split": {"experiment": "label"}}],
        "experiments": [
            {
                "name": "label",
                "arms": {"iris@1.0.0": 1, "iris@1.1.0": 1},
                "control": "iris@1.0.0",
                "key": {"header": "x-user"},
                "primary": {"metric": "accepted", "kind": "binary", "direction": "increase"},
            }
        ],
    }
)
"""A route divided by an experiment."""
