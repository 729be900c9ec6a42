"""Data planes for the tests of this folder."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import pytest
import yaml

from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess
from tests.router.wire import in_flight


class WriteModel(Protocol):
    def __call__(self, name: str, code: str, version: str = "1.0.0") -> None: ...


@pytest.fixture(scope="session")
def served() -> Iterator[DataPlaneInProcess]:
    """Iris, echo and flaky, one replica each, behind one gateway that several tests share."""
    plane = DataPlaneInProcess()
    for ref in ("iris@1.0.0", "echo@1.0.0", "flaky@1.0.0"):
        plane.replica(ref)
    plane.gateway()
    yield plane
    plane.close()


@pytest.fixture
def gateway(served: DataPlaneInProcess) -> Iterator[Gateway]:
    """The shared gateway; a test may leave nothing in flight there."""
    yield from _left_as_found(served, served.gateways[0])


@pytest.fixture(scope="session")
def strict_gateway(served: DataPlaneInProcess) -> Gateway:
    """A second gateway to the same replicas, with limits that a test can pass quickly."""
    return served.gateway(
        limits={"max_head_bytes": 4096, "max_body_bytes": 100_000, "head_timeout_s": 5.0, "body_timeout_s": 10.0}
    )


@pytest.fixture
def strict(served: DataPlaneInProcess, strict_gateway: Gateway) -> Iterator[Gateway]:
    yield from _left_as_found(served, strict_gateway)


def _left_as_found(served: DataPlaneInProcess, gateway: Gateway) -> Iterator[Gateway]:
    before = in_flight(gateway)
    yield gateway
    served.until(lambda: in_flight(gateway) == before)


@pytest.fixture
def plane() -> Iterator[DataPlaneInProcess]:
    """An empty data plane of a test's own."""
    plane = DataPlaneInProcess()
    yield plane
    plane.close()


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a Python model from x (FP32) to y (FP32) into the folder `tmp_path`."""

    def write(name: str, code: str, version: str = "1.0.0") -> None:
        folder = tmp_path / name / version
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(code)
        tensors = {"inputs": "x", "outputs": "y"}
        document = {
            "name": name,
            "version": version,
            "runtime": "python",
            "file": "model.py",
            "sha256": sha256(code.encode()).hexdigest(),
            "limits": {"max_concurrent_runs": 4},
            **{key: [{"name": tensor, "datatype": "FP32", "shape": [-1]}] for key, tensor in tensors.items()},
        }
        (folder / "model.yaml").write_text(yaml.safe_dump(document))

    return write
