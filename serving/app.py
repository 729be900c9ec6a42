"""One model version as a Ray Serve application: `import_path: serving.app:build`."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from cluster.ray_coordination import RayCoordination
from cluster.thread import LoopThread
from nstarx.repository import Repository
from nstarx.spec.cluster import VersionArgs
from nstarx.spec.model import ModelSpec
from nstarx.spec.record import parse
from nstarx.spec.version import VersionRef
from serving.replica import DRAIN_S, Replica


class Version:
    """A Serve replica: hosts a `Replica` in a thread of its own, and lets Ray Serve look after it."""

    def __init__(self, args: VersionArgs) -> None:
        self._thread = LoopThread("lanes")
        self._replica = Replica(
            Repository.locate(args.repository),
            VersionRef.parse(args.version),
            ray.get_runtime_context().get_node_id(),
            ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
            RayCoordination(),
            args.tracing,
        )
        self._thread.submit(self._replica.start()).result()
        self._thread.settle()

    async def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Ray Serve's `user_config`: live settings, taken without a restart."""
        await asyncio.wrap_future(self._thread.submit(self._replica.reconfigure(settings)))

    async def check_health(self) -> None:
        why = self._replica.unhealthy(time.monotonic())
        if why:
            raise RuntimeError(why)

    async def __del__(self) -> None:
        await asyncio.wrap_future(self._thread.submit(self._replica.stop()))
        self._thread.stop()


def build(args: Mapping[str, Any]) -> Application:
    """The application for `{version, repository, replicas, settings}`. Raises NStarXError.

    An update starts new replicas before the old ones drain; more replicas or other settings restart none.
    """
    version = parse(VersionArgs, dict(args), "arguments of serving.app:build")
    spec = Repository.locate(version.repository).spec(VersionRef.parse(version.version))
    deployment = serve.deployment(
        name=spec.ref.slug,
        num_replicas=version.replicas,
        user_config=version.settings,
        ray_actor_options=_actor_options(spec),
        max_constructor_retry_count=2,
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=DRAIN_S + 5,
        graceful_shutdown_wait_loop_s=0.1,
        max_surge_percent=100,
    )
    # What only Ray Serve needs is left out of the arguments: changing it must not restart those that stay.
    return deployment(Version).bind(version.model_copy(update={"replicas": 1, "settings": {}}))


def _actor_options(spec: ModelSpec) -> dict[str, Any]:
    resources, requirements = spec.resources, spec.python.requirements
    options: dict[str, Any] = {"num_cpus": resources.cpu, "num_gpus": resources.gpu, "memory": resources.memory}
    if requirements:
        options["runtime_env"] = {"pip": list(requirements)}
    return options
