"""Brings a cluster up from one configuration, and takes it down again in an order that loses no request."""

import contextlib
import importlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import preflight, upfile
from cluster.applications import delay_of, failure_of, run
from nstarx.client import Admin, Inference
from nstarx.errors import ModelLoadFailed, NStarXError, Unavailable
from nstarx.repository import Repository
from nstarx.spec.cluster import GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, VERSION_IMPORT_PATH, ClusterSpec, VersionSpec
from nstarx.spec.version import VersionRef

START_S = 180.0
"""How long all versions may take until they are ready."""
INSTALL_S = 600.0
"""How much longer when some have packages of their own to install: as long as Ray lets one installation take."""
STOP_S = 30.0
"""How long all versions may take to finish what they have begun."""
POLL_S = 0.1

RAY_SETTINGS = {
    # Ray gives its workers a low priority (niceness 15): right for batch work, not for answers.
    "RAY_worker_niceness": "0",
    # pip itself repeats what a network may lose. Ray would repeat the copy of the whole environment before it, too.
    "RUNTIME_ENV_RETRY_TIMES": "1",
    # How long Ray remembers an installation that failed: over Serve's next try, not over a person's (600 by default).
    "BAD_RUNTIME_ENV_CACHE_TTL_SECONDS": "10",
}
"""Settings of a Ray of our own; the environment's go before them."""

Tell = Callable[[str], None]
"""Shows a sentence about the progress."""


class Cluster:
    """One configuration's gateways and versions, on a Ray of its own or on one that is there."""

    def __init__(self, spec: ClusterSpec, ray_address: str | None, tell: Tell) -> None:
        self.spec = spec
        self._ray_address = ray_address
        self._tell = tell
        self._started = self._listening = False
        self._environments: Path | None = None
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
        preflight.check(self.spec, here=self._ray_address is None)
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
        if self._environments is not None:  # Ray keeps them, as large as this one's: nobody would use them again.
            shutil.rmtree(self._environments, ignore_errors=True)
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
            for name, value in RAY_SETTINGS.items():
                os.environ.setdefault(name, value)
            threading.Thread(target=_import_ahead, daemon=True).start()
            # "local", because without an address Ray joins one that it finds running, or one that is long gone.
            ray = _init("local", include_dashboard=False)
            self._environments = Path(ray.address_info["session_dir"]) / "runtime_resources"
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
            registered = [ref for ref, count in wanted.items() if (counts or {}).get(ref, 0) >= count]
            for ref in filter(self._answers, registered):
                del wanted[ref]
                self._tell(f"{ref} is ready")
            self._check()
            return self._listening and not wanted

        seconds = START_S + (INSTALL_S if self._installing(versions) else 0)
        if not self._until(ready, seconds):
            raise Unavailable(self._late(tuple(wanted), seconds))

    def _installing(self, versions: tuple[VersionSpec, ...]) -> bool:
        """Whether some of them have packages of their own; tells of it, for it takes long."""
        repository = Repository.locate(self.spec.repository)
        installing = [v.version for v in versions if repository.spec(VersionRef.parse(v.version)).python.requirements]
        if installing:
            self._tell(f"installing python.requirements of {', '.join(installing)} into a copy of this environment")
        return bool(installing)

    def _late(self, wanted: tuple[str, ...], seconds: float) -> str:
        """What is missing after this time, and what Ray Serve says of it."""
        if not self._listening:
            return f"no gateway answered at {self.admin_url} after {seconds:g} s; {_waits_for(GATEWAY_APPLICATION)}"
        delays = [f"{ref}: {_waits_for(VersionRef.parse(ref).slug)}" for ref in wanted]
        return f"not everything was ready after {seconds:g} s; " + "; ".join(delays)

    def _replicas(self) -> dict[str, int] | None:
        """Version to replicas that have registered; None while no gateway answers."""
        with contextlib.suppress(NStarXError), Admin(self.admin_url, timeout_s=2) as admin:
            return {version["version"]: version["replicas"] for version in admin.status()["versions"]}
        return None

    def _answers(self, version: str) -> bool:
        """Whether a gateway has reached a replica of it: what any client would ask."""
        ref = VersionRef.parse(version)
        with contextlib.suppress(NStarXError), Inference(self.url, timeout_s=2) as inference:
            return inference.ready(ref.model, ref.version)
        return False

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


def _init(address: str, **options: Any) -> Any:
    """Start or join Ray; what it says of itself."""
    import ray

    return ray.init(address, namespace="nstarx", log_to_driver=False, logging_level=logging.ERROR, **options)


def _join(address: str) -> None:
    preflight.check_ray(address)
    try:
        _init(address)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Unavailable(f"no Ray cluster at {address}: {str(error).splitlines()[0]}") from None


def _waits_for(application: str) -> str:
    return delay_of(application) or "Ray Serve doesn't say why; `ray status` says whether resources lack"


def _reachable(host: str) -> str:
    """Where a listener on `host` is found from the same machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)


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
