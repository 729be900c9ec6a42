"""Ray Serve applications: how gateways and versions come and go. The real border, and its twin in memory."""

import asyncio
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from cluster.failures import reason
from nstarx.errors import ModelLoadFailed
from nstarx.spec.cluster import VERSION_IMPORT_PATH
from nstarx.spec.version import VersionRef


class Applications(Protocol):
    """Versions as applications. Deploying one that is there already changes what has changed."""

    async def deploy(self, ref: VersionRef) -> None:
        """Start a version; returns before it is ready. Raises NStarXError when it can't even be described."""

    async def check(self, ref: VersionRef) -> None:
        """Raises ModelLoadFailed when Ray Serve has given up on a version."""

    async def delete(self, ref: VersionRef) -> None:
        """Stop a version, if it is there; it finishes what it has begun."""


class InMemoryApplications:
    """The twin: remembers what was asked for. `broken` names versions whose replicas can't start, and why."""

    def __init__(self, broken: Mapping[VersionRef, str] | None = None) -> None:
        self.deployed: set[VersionRef] = set()
        self._broken = dict(broken or {})

    async def deploy(self, ref: VersionRef) -> None:
        self.deployed.add(ref)

    async def check(self, ref: VersionRef) -> None:
        if ref in self._broken:
            raise ModelLoadFailed(str(ref), self._broken[ref])

    async def delete(self, ref: VersionRef) -> None:
        self.deployed.discard(ref)


class ServeApplications:
    """The real one. Ray Serve's calls block, so they run in a thread."""

    def __init__(self, repository: str | None) -> None:
        self._repository = repository

    async def deploy(self, ref: VersionRef) -> None:
        args = {"version": str(ref), "repository": self._repository or "models"}
        await asyncio.to_thread(run, [(ref.slug, VERSION_IMPORT_PATH, args)])

    async def check(self, ref: VersionRef) -> None:
        failure = await asyncio.to_thread(failure_of, ref.slug)
        if failure:
            raise ModelLoadFailed(str(ref), failure)

    async def delete(self, ref: VersionRef) -> None:
        from ray import serve

        await asyncio.to_thread(serve.delete, ref.slug, _blocking=True)


def run(applications: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Deploy applications, each a name, an import path and arguments; returns before they run. Raises NStarXError."""
    from ray import serve

    targets = [serve.RunTarget(build(path, args), name, route_prefix=None) for name, path, args in applications]
    serve.run_many(targets, wait_for_applications_running=False, wait_for_ingress_deployment_creation=False)


def build(import_path: str, args: Mapping[str, Any]) -> Any:
    """What an application's builder makes of its arguments. Raises NStarXError."""
    module, _, name = import_path.partition(":")
    builder: Callable[[Mapping[str, Any]], Any] = getattr(importlib.import_module(module), name)
    return builder(args)


def failure_of(name: str) -> str | None:
    """Why Ray Serve has given up on an application, if it has, as a sentence."""
    status, messages = _said_of(name)
    return reason("\n".join(messages)) if status in ("DEPLOY_FAILED", "UNHEALTHY") else None


def delay_of(name: str) -> str | None:
    """What Ray Serve says that an application waits for, or was refused meanwhile; None when it says nothing."""
    _, messages = _said_of(name)
    text = "\n".join(messages).strip()
    return reason(text) if text else None


def _said_of(name: str) -> tuple[str, list[str]]:
    """An application's status and its messages, its deployments' behind its own."""
    from ray import serve

    status = serve.status().applications.get(name)
    if status is None:
        return "NOT_STARTED", []
    return status.status, [status.message, *(deployment.message for deployment in status.deployments.values())]
