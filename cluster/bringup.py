"""Brings a cluster up from one configuration, and takes it down again in an order that loses no request."""

import contextlib
import importlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from cluster import upfile
from cluster.applications import failure_of, run
from nstarx.client import Admin
from nstarx.errors import InvalidConfiguration, ModelLoadFailed, NStarXError, Unavailable
from nstarx.spec.cluster import GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, VERSION_IMPORT_PATH, ClusterSpec, VersionSpec
from nstarx.spec.version import VersionRef

START_S = 180.0
"""How long all versions may take until they are ready."""
STOP_S = 30.0
"""How long all versions may take to finish what they have begun."""
POLL_S = 0.1

Tell = Callable[[str], None]
"""Shows a sentence about the progress."""


class Cluster:
    """One configuration's gateways and versions, on a Ray of its own or on one that is there."""

    def __init__(self, spec: ClusterSpec, ray_address: str | None, tell: Tell) -> None:
        self.spec = spec
        self._ray_address = ray_address
        self._tell = tell
        self._started = self._listening = False
        self._slugs = {VersionRef.parse(version.version).slug: version.version for version in spec.versions}

    @property
    def url(self) -> str:
        return f"http://{_reachable(self.spec.gateway.host)}:{self.spec.gateway.port}"

    @property
    def admin_url(self) -> str:
        return f"http://{_reachable(self.spec.gateway.admin_host)}:{self.spec.gateway.admin_port}"

    def start(self, on_ray: Callable[[], object] = lambda: None) -> None:
        """Ray, gateways, versions; returns when every version answers. Raises NStarXError that says what did not.

        `on_ray` is called once Ray is there: Ray takes over some signals of its process.
        """
        _check_free(_reachable(self.spec.gateway.host), self.spec.gateway.port)
        _check_free(_reachable(self.spec.gateway.admin_host), self.spec.gateway.admin_port)
        self._start_ray()
        on_ray()
        self._started = True
        applications = (GATEWAY_APPLICATION, *self._slugs)
        upfile.write(
            self.spec.gateway.admin_port,
            upfile.Up(pid=os.getpid(), ray_address=self._ray_address, applications=applications),
        )
        self._deploy()

    def stop(self) -> None:
        """Gateways first, so that what they have accepted is still answered; then versions, coordinator and Ray."""
        if not self._started:
            return
        import ray
        from ray import serve

        from cluster.ray_coordination import NAME, NAMESPACE

        for name in (GATEWAY_APPLICATION, *self._slugs):
            with contextlib.suppress(Exception):  # Whatever is broken, what comes after it is to end too.
                serve.delete(name, _blocking=name == GATEWAY_APPLICATION)
        with contextlib.suppress(Exception):
            self._until(lambda: not set(self._slugs) & set(serve.status().applications), STOP_S)
            ray.kill(ray.get_actor(NAME, NAMESPACE))
        ray.shutdown()
        upfile.forget(self.spec.gateway.admin_port)

    def _deploy(self) -> None:
        """The gateway and the first version before the others, so that the first answer comes soon."""
        gateway = (GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, self.spec.gateway_args())
        first, others = self.spec.versions[:1], self.spec.versions[1:]
        self._tell("deploying the gateway" + "".join(f" and {version.version}" for version in first))
        run([gateway, *map(self._application, first)])
        self._wait(first)
        if others:
            self._tell("deploying " + ", ".join(version.version for version in others))
            run(map(self._application, others))
            self._wait(others)

    def _application(self, version: VersionSpec) -> tuple[str, str, dict[str, Any]]:
        return VersionRef.parse(version.version).slug, VERSION_IMPORT_PATH, self.spec.version_args(version)

    def _start_ray(self) -> None:
        if self._ray_address is None:
            self._tell("starting Ray")
            # Ray gives its workers a low priority (niceness 15): right for batch work, not for answers.
            os.environ.setdefault("RAY_worker_niceness", "0")
            threading.Thread(target=_import_ahead, daemon=True).start()
            # "local", because without an address Ray joins one that it finds running, or one that is long gone.
            _init("local", include_dashboard=False)
        else:
            self._tell(f"joining Ray at {self._ray_address}")
            _join(self._ray_address)
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled", logging_config={"enable_access_log": False, "log_level": "WARNING"})

    def _wait(self, versions: tuple[VersionSpec, ...]) -> None:
        """Until the gateway says that these versions have their replicas; tells of each as it comes."""
        wanted = {version.version: version.replicas for version in versions}

        def ready() -> bool:
            counts = self._replicas()
            if counts is not None and not self._listening:
                self._listening = True
                self._tell(f"the gateway listens on {self.url}")
            for ref in [ref for ref, count in wanted.items() if (counts or {}).get(ref, 0) >= count]:
                del wanted[ref]
                self._tell(f"{ref} is ready")
            self._check()
            return self._listening and not wanted

        if not self._until(ready, START_S):
            raise Unavailable(f"not everything was ready after {START_S:g} s; `ray status` says whether resources lack")

    def _replicas(self) -> dict[str, int] | None:
        """Version to replicas that are ready; None while no gateway answers."""
        with contextlib.suppress(NStarXError), Admin(self.admin_url, timeout_s=2) as admin:
            return {version["version"]: version["replicas"] for version in admin.status()["versions"]}
        return None

    def _check(self) -> None:
        for name in (GATEWAY_APPLICATION, *self._slugs):
            failure = failure_of(name)
            if failure:
                raise ModelLoadFailed(self._slugs.get(name, "the gateway"), failure)

    @staticmethod
    def _until(true: Callable[[], bool], seconds: float) -> bool:
        """Ask until it is true; False when that takes too long."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


def _import_ahead() -> None:
    """Import what deploying needs while Ray's processes start: that is waiting time for this one."""
    for path in (GATEWAY_IMPORT_PATH, VERSION_IMPORT_PATH):
        importlib.import_module(path.partition(":")[0])


def _init(address: str, **options: Any) -> None:
    import ray

    ray.init(address, namespace="nstarx", log_to_driver=False, logging_level=logging.ERROR, **options)


def _join(address: str) -> None:
    try:
        _init(address)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Unavailable(f"no Ray cluster at {address}: {str(error).splitlines()[0]}") from None


def _reachable(host: str) -> str:
    """Where a listener on `host` is found from the same machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)


def _check_free(host: str, port: int) -> None:
    with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), port), timeout=1):
        raise InvalidConfiguration(
            f"port {port} of {host} is in use; end what uses it, or set gateway.port and gateway.admin_port"
        )


def take_down(up: upfile.Up, port: int) -> None:
    """Remove what is left of a cluster whose process is gone: its applications on the Ray that it joined."""
    import ray
    from ray import serve

    if up.ray_address is not None:
        _join(up.ray_address)
        for name in up.applications:
            serve.delete(name)
        ray.shutdown()
    upfile.forget(port)
