"""The real thing: gateways and versions as Ray Serve applications on a local Ray, shared by this folder's tests."""

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from cluster.private import private_folder
from nstarx.client import Admin
from nstarx.errors import NStarXError
from nstarx.spec.cluster import GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, VERSION_IMPORT_PATH
from nstarx.spec.version import VersionRef
from tests.in_process import MODELS, free_port

VERSIONS = {"iris@1.0.0": 2, "iris@1.1.0": 1, "echo@1.0.0": 1, "flaky@1.0.0": 1}
"""Version to replicas."""
SHARES = {"iris@1.0.0": 75.0, "iris@1.1.0": 25.0}


class Served(NamedTuple):
    """Where the data plane answers."""

    port: int
    admin_port: int

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def admin(self) -> Admin:
        return Admin(f"http://127.0.0.1:{self.admin_port}")

    def replicas(self) -> dict[str, int]:
        """Version to registered replicas."""
        try:
            with self.admin as admin:
                return {version["version"]: version["replicas"] for version in admin.status()["versions"]}
        except NStarXError:
            return {}


def gateway_args(port: int, admin_port: int, processes: int) -> dict[str, Any]:
    """Arguments of the gateways' application."""
    return {
        "port": port,
        "admin_port": admin_port,
        "processes": processes,
        "drain_s": 5.0,
        "model_control": "explicit",
        "repository": str(MODELS),
        "routes": [{"model": "iris", "split": {"weighted": SHARES}}],
    }


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that other processes bring about; a bound on a hang, not a timing."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"did not come true within {seconds:g} s"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def served(ray_cluster: None) -> Iterator[Served]:
    """Two gateways, three versions of two replicas and one; each test leaves them as it found them."""
    from ray import serve

    from cluster.applications import run

    place = Served(free_port(), free_port())
    serve.start(proxy_location="Disabled", logging_config={"enable_access_log": False, "log_level": "WARNING"})
    versions = [
        (VersionRef.parse(ref).slug, VERSION_IMPORT_PATH, {"version": ref, "replicas": n, "repository": str(MODELS)})
        for ref, n in VERSIONS.items()
    ]
    run([(GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, gateway_args(*place, processes=2)), *versions])
    until(lambda: place.replicas() == VERSIONS, 120)
    yield place
    serve.shutdown()  # type: ignore[no-untyped-call]
    shutil.rmtree(private_folder() / f"state-{place.admin_port}", ignore_errors=True)
