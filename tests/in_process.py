"""A whole data plane in this process, without Ray: real sockets, lanes, batchers and models, the coordinator in memory.

It lives in a thread with an event loop of its own, so that tests may use blocking clients against it.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from cluster.applications import InMemoryApplications
from cluster.coordinator import Coordinator
from cluster.thread import LoopThread
from nstarx.repository import Repository
from nstarx.spec.experiment import ExperimentSpec
from nstarx.spec.gateway import GatewaySpec
from nstarx.spec.route import RoutesDocument, RouteSpec
from nstarx.spec.version import VersionRef
from router.admin import admin_app
from router.dataplane import DataPlane
from router.endpoints import public_app
from router.gateway import Gateway
from serving.replica import Replica

T = TypeVar("T")

MODELS = Path(__file__).resolve().parent.parent / "models"
NODE = "node-1"


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DataPlaneInProcess:
    """One coordinator, gateways and replicas, each started and stopped by a test."""

    def __init__(self, repository: Path = MODELS, state_dir: Path | None = None) -> None:
        self.thread = LoopThread("data-plane")
        self.coordinator = Coordinator()
        self._state = TemporaryDirectory()
        self.state_dir = str(state_dir or Path(self._state.name) / "state")
        """Where the coordinator keeps what experiments have seen."""
        self.repository = Repository(repository)
        self.applications = InMemoryApplications()
        self.replicas: list[Replica] = []
        self.gateways: list[Gateway] = []

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the data plane's loop, and wait for it."""
        return self.thread.submit(work).result(timeout=30)

    def replica(self, ref: str, node: str = NODE, host: str | None = None) -> Replica:
        """Start a replica of a version; `host` makes it listen on TCP too."""
        replica = Replica(self.repository, VersionRef.parse(ref), node, host, self.coordinator)
        self.call(replica.start())
        self.replicas.append(replica)
        return replica

    def gateway(
        self, routes: tuple[RouteSpec, ...] = (), experiments: tuple[ExperimentSpec, ...] = (), **spec: Any
    ) -> Gateway:
        """Start a gateway on free ports; it has the coordinator's snapshot and its lanes when this returns."""
        ports = {"port": free_port(), "admin_port": free_port()}
        settings = GatewaySpec(**{**ports, "drain_s": 2.0, "state_dir": self.state_dir, **spec})
        document = RoutesDocument(routes=routes, experiments=experiments)
        gateway = Gateway(f"gateway-{len(self.gateways)}", NODE, settings, self.coordinator, document)
        plane = DataPlane(gateway, self.repository, self.applications)
        public = public_app(plane, settings.model_control == "explicit")
        self.call(gateway.start(public, admin_app(gateway, plane)))
        self.gateways.append(gateway)
        self.settle(gateway)
        return gateway

    def settle(self, gateway: Gateway) -> None:
        """Wait until a gateway holds the newest snapshot and a lane to each of its replicas."""
        self.until(lambda: gateway.table.snapshot.number == self.coordinator_number())
        self.until(lambda: len(gateway.lanes()) == len(gateway.table.snapshot.replicas))

    def tick(self) -> None:
        """Let the coordinator judge what it has heard, as it does twice a second."""

        async def once() -> None:
            self.coordinator.tick(time.monotonic())

        self.call(once())

    def coordinator_number(self) -> int:
        return self.call(self.coordinator.snapshot()).number

    def until(self, true: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait for something that other parts bring about; a bound on a hang, not a timing."""
        for _ in range(int(seconds / 0.01)):
            if true():
                return
            time.sleep(0.01)
        raise AssertionError(f"did not come true within {seconds:g} s")

    def close(self) -> None:
        parts: list[Gateway | Replica] = [*self.gateways, *self.replicas]
        for part in parts:
            with contextlib.suppress(Exception):
                self.call(part.stop())
        self.thread.stop()
        self.coordinator.close()
        self._state.cleanup()


@contextlib.contextmanager
def data_plane(*refs: str, routes: tuple[RouteSpec, ...] = (), **spec: Any) -> Iterator[tuple[DataPlaneInProcess, str]]:
    """A data plane that serves these versions through one gateway, and the URL of its inference port."""
    plane = DataPlaneInProcess()
    try:
        for ref in refs:
            plane.replica(ref)
        gateway = plane.gateway(routes, **spec)
        yield plane, f"http://127.0.0.1:{gateway.spec.port}"
    finally:
        plane.close()
