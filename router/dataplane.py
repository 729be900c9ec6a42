"""The data plane's verbs, the same for every way in: the meaning of the Open Inference Protocol beside inference."""

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Any

from cluster.applications import Applications
from nstarx import __version__
from nstarx.errors import (
    InvalidRequest,
    ModelNotFound,
    NStarXError,
    Unavailable,
    VersionNotAddressable,
    VersionNotFound,
)
from nstarx.metadata import model_config, model_metadata
from nstarx.repository import Repository
from nstarx.spec.experiment import OutcomeRecord
from nstarx.spec.model import ModelSpec
from nstarx.spec.version import VersionRef
from router.explaining import Explanation, Question, explained
from router.gateway import Gateway
from router.table import Address, Target

EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "schedule_policy", "statistics"]
LOAD_S = 120.0
"""How long a load may take until the model's first replica answers."""
POLL_S = 0.1


class DataPlane:
    """Asks the gateway's table, its replicas, the repository and Ray Serve. Raises NStarXError."""

    def __init__(self, gateway: Gateway, repository: Repository | None, applications: Applications) -> None:
        self._gateway = gateway
        self._repository = repository
        self._applications = applications

    # Health and metadata

    def live(self) -> bool:
        """Whether the process works."""
        return True

    def ready(self) -> bool:
        """Whether it should be sent requests: it has joined, something answers behind it, and it isn't draining."""
        gateway = self._gateway
        return gateway.joined and not gateway.draining and bool(gateway.lanes())

    def server_metadata(self) -> dict[str, Any]:
        return {"name": "nstarx", "version": __version__, "extensions": EXTENSIONS}

    def model_ready(self, address: Address) -> bool:
        """Whether an inference request would find a replica."""
        return not self._gateway.draining and self.target(address).live_arm() is not None

    def model_metadata(self, address: Address) -> dict[str, Any]:
        spec = self._spec(address)
        return {**model_metadata(spec, self._versions(address)), "name": address.model}

    def model_config(self, address: Address) -> dict[str, Any]:
        return {**model_config(self._spec(address)), "name": address.model}

    def prefixes(self) -> Collection[str]:
        """Path prefixes that routes have."""
        return self._gateway.table.prefixes

    def target(self, address: Address) -> Target:
        """What answers a model. Raises ModelNotFound, VersionNotFound or VersionNotAddressable with what there is
        instead."""
        target = self._gateway.table.to(address)
        if target is None:
            raise self._missing(address)
        return target

    def explain(self, question: Question) -> Explanation:
        """Which version a request would get, and why. Raises what the request would be refused with."""
        target = self.target(question.address)
        return explained(target, question, self._gateway.standings().get(target.route.name, {}))

    def _missing(self, address: Address) -> NStarXError:
        table, unversioned = self._gateway.table, address._replace(version=None)
        routed = table.to(unversioned)
        if address.version is None or routed is None:
            near = (target.route for target in table.all_targets() if target.route.path_prefix == address.prefix)
            known = {route.model for route in near if not route.hosts or address.host.lower() in route.hosts}
            return ModelNotFound(address.model, known)
        if not routed.route.direct:
            return VersionNotAddressable(routed.route.name, unversioned.path.decode())
        return VersionNotFound(address.model, address.version, self._versions(unversioned))

    def why_not(self, address: Address) -> NStarXError:
        """Why an inference request for a model was not taken by the hot path; counted, like what that path refuses."""
        reason: NStarXError = Unavailable(f"model '{address.model}' has just become ready; repeat the request")
        try:
            self.target(address)
        except NStarXError as error:
            reason = error
        self._gateway.refuse(reason)
        return reason

    def _spec(self, address: Address) -> ModelSpec:
        """The specification of what answers: of a split, the one with the largest share that is known."""
        models = self._gateway.table.snapshot.models
        arms = sorted(self.target(address).arms, key=lambda arm: -arm.weight)
        for arm in arms:
            if arm.ref in models:
                return models[arm.ref]
        raise Unavailable(f"no version that answers '{address.model}' has a replica; retry after a second")

    def _versions(self, address: Address) -> list[str]:
        if address.version is not None:
            return [address.version]
        refs = sorted(VersionRef.parse(arm.ref) for arm in self.target(address).arms)
        return [ref.version for ref in refs]

    # Experiments

    async def report_outcomes(self, experiment: str, outcomes: tuple[OutcomeRecord, ...]) -> list[str]:
        """What became of each outcome, in order. Raises InvalidOutcome, ExperimentNotFound, ExperimentConflict,
        LedgerUnwritable; none counts then."""
        return [recording.value for recording in await self._gateway.report_outcomes(experiment, outcomes)]

    # Statistics

    async def statistics(self, address: Address | None) -> dict[str, Any]:
        """Triton's statistics extension, summed over replicas; of every version where no model is named."""
        refs = self._refs(address)
        counters = await self._gateway.counters()
        sums = {ref: [c for r, c in counters.values() if r == str(ref)] for ref in refs}
        return {"model_stats": [_statistics(ref, replicas) for ref, replicas in sums.items()]}

    def _refs(self, address: Address | None) -> list[VersionRef]:
        served = sorted(VersionRef.parse(ref) for ref in self._gateway.table.snapshot.models)
        if address is None:
            return served
        target = self.target(address)
        answering = {arm.ref for arm in target.arms}
        whole = address.version is None and not target.route.hosts and not target.route.path_prefix
        return [ref for ref in served if str(ref) in answering or (whole and ref.model == address.model)]

    # Model repository

    def index(self, ready_only: bool) -> list[dict[str, str]]:
        """Every version in the repository or served, with its state."""
        served = {VersionRef.parse(ref) for ref in self._gateway.table.snapshot.models}
        stored = set(self._repository.refs()) if self._repository else set()
        entries = [self._entry(ref) for ref in sorted(served | stored)]
        return [entry for entry in entries if entry["state"] == "READY" or not ready_only]

    async def load(self, name: str, parameters: dict[str, Any]) -> None:
        """Deploy a version of the repository, the latest unless `parameters.version` names one, and wait for it.

        One that is served already stays as it is: it may have more replicas or other settings than a load would give.
        Raises ModelNotFound, VersionNotFound, ModelLoadFailed, Unavailable.
        """
        ref = self._stored(name, parameters)
        if self._gateway.compiler.backend(str(ref)).lanes:
            return
        await self._applications.deploy(ref)
        for _ in range(int(LOAD_S / POLL_S)):
            if self._gateway.compiler.backend(str(ref)).lanes:
                return
            await self._applications.check(ref)
            await asyncio.sleep(POLL_S)
        raise Unavailable(f"{ref} was not ready after {LOAD_S:g} s; its Ray Serve application goes on starting")

    async def unload(self, name: str) -> None:
        """Remove every version of a model; what they have begun they finish."""
        refs = [VersionRef.parse(ref) for ref in self._gateway.table.snapshot.models]
        leaving = [ref for ref in refs if ref.model == name]
        if not leaving:
            raise ModelNotFound(name, {ref.model for ref in refs})
        for ref in leaving:
            await self._applications.delete(ref)

    def _stored(self, name: str, parameters: dict[str, Any]) -> VersionRef:
        if self._repository is None:
            raise Unavailable("this gateway was started without a model repository; set `repository`")
        unknown = set(parameters) - {"version"}
        if unknown:
            raise InvalidRequest(f"parameters: {', '.join(sorted(unknown))} is not understood; known is: version")
        version = parameters.get("version")
        ref = VersionRef(name, version) if isinstance(version, str) else self._repository.latest(name)
        self._repository.spec(ref)
        return ref

    def _entry(self, ref: VersionRef) -> dict[str, str]:
        ready = bool(self._gateway.compiler.backend(str(ref)).lanes)
        reason = "" if ready else "not loaded"
        return {
            "name": ref.model,
            "version": ref.version,
            "state": "READY" if ready else "UNAVAILABLE",
            "reason": reason,
        }


def _statistics(ref: VersionRef, replicas: list[dict[str, Any]]) -> dict[str, Any]:
    """One version's statistics in Triton's form, from its replicas' counters."""

    def total(name: str) -> int:
        return sum(counters[name] for counters in replicas)

    def duration(count: str, ns: str) -> dict[str, int]:
        return {"count": total(count), "ns": total(ns)}

    batches: Counter[int] = Counter()
    for counters in replicas:
        batches.update({int(size): runs for size, runs in counters["batches"].items()})
    return {
        "name": ref.model,
        "version": ref.version,
        "last_inference": max((counters["last_inference_ms"] for counters in replicas), default=0),
        "inference_count": total("rows"),
        "execution_count": total("runs"),
        "inference_stats": {
            "success": duration("succeeded", "succeeded_ns"),
            "fail": duration("failed", "failed_ns"),
            "queue": duration("succeeded", "queued_ns"),
            "compute_input": duration("runs", "input_ns"),
            "compute_infer": duration("runs", "infer_ns"),
            "compute_output": duration("runs", "output_ns"),
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [
            {"batch_size": size, "compute_infer": {"count": runs}} for size, runs in sorted(batches.items())
        ],
        "memory_usage": [{"type": "process", "id": 0, "byte_size": counters["rss_bytes"]} for counters in replicas],
    }
