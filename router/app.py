"""The gateways as a Ray Serve application: `import_path: router.app:build`."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from cluster.applications import ServeApplications
from cluster.ray_coordination import RayCoordination
from cluster.thread import LoopThread
from nstarx.repository import Repository
from nstarx.spec.cluster import GATEWAY_APPLICATION, GatewayArgs
from nstarx.spec.record import parse
from router.admin import admin_app
from router.dataplane import DataPlane
from router.endpoints import public_app
from router.gateway import Gateway

SILENCE_S = 10.0
"""An event loop that has shown no life for this long is dead."""


class GatewayProcess:
    """A Serve replica: hosts a `Gateway` in a thread of its own, and lets Ray Serve look after it."""

    def __init__(self, args: GatewayArgs) -> None:
        self._thread = LoopThread("gateway")
        self._gateway = Gateway(
            f"gateway-{secrets.token_hex(4)}",
            ray.get_runtime_context().get_node_id(),
            args,
            RayCoordination(),
            args.document(),
        )
        self._thread.submit(self._start(args)).result()
        self._thread.settle()

    async def check_health(self) -> None:
        silent = time.monotonic() - self._gateway.beat_at
        if silent > SILENCE_S:
            raise RuntimeError(f"the event loop has been silent for {silent:.1f} s")

    async def __del__(self) -> None:
        await asyncio.wrap_future(self._thread.submit(self._gateway.stop()))
        self._thread.stop()

    async def _start(self, args: GatewayArgs) -> None:
        repository = Repository.locate(args.repository) if args.repository else None
        plane = DataPlane(self._gateway, repository, ServeApplications(args.repository))
        await self._gateway.start(public_app(plane, args.model_control == "explicit"), admin_app(self._gateway, plane))


def build(args: Mapping[str, Any]) -> Application:
    """The application for a gateway's settings, `repository` and `routes`. Raises InvalidConfiguration."""
    return application(GatewayProcess, parse(GatewayArgs, dict(args), "arguments of router.app:build"))


def application(process: type[GatewayProcess], gateway: GatewayArgs) -> Application:
    """Gateways of one kind of process. An update starts new ones before the old ones drain: they share the port."""
    deployment = serve.deployment(
        name=GATEWAY_APPLICATION,
        num_replicas=gateway.processes,
        ray_actor_options={"num_cpus": 0.1},
        max_constructor_retry_count=2,
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=gateway.drain_s + 5,
        graceful_shutdown_wait_loop_s=0.1,
        max_surge_percent=100,
    )
    # What only Ray Serve needs is left out of the arguments: changing it must not restart those that stay.
    return deployment(process).bind(gateway.model_copy(update={"processes": 1}))
