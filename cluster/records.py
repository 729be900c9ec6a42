"""What the coordinator tells gateways, and what replicas tell the coordinator."""

from typing import Any, Literal

from pydantic import Field

from judging.standing import Standing
from judging.verdict import Evidence
from nstarx.spec.experiment import ExperimentSpec
from nstarx.spec.model import ModelSpec
from nstarx.spec.record import Record
from nstarx.spec.route import RouteSpec
from nstarx.spec.trial import Trial

PURGES = 100
"""Purges of caches that a snapshot tells; a gateway that has missed more drops everything."""


class DemotionRecord(Record):
    """A verdict against a version, and what was made of it."""

    id: int
    """Rises from record to record."""
    time: float
    """When, in seconds of Unix time."""
    route: str
    version: str
    outcome: Literal["demoted", "given_up", "refused", "observed"]
    """Demoted and given up: out of traffic. Refused: it had to stay. Observed: the policy says enforce: false."""
    until: float | None = None
    """When probation begins, in seconds of Unix time."""
    sentence: str
    """What was decided, and why."""
    evidence: Evidence
    gateway: str | None = None
    """The gateway that saw it first; None when only the counts of all showed it."""
    undone: float | None = None
    """When a person undid it."""


class ReplicaRecord(Record):
    """One live replica of a version."""

    replica: str
    """Unique id, a new one at every start."""
    ref: str
    """The version it serves, `iris@1.0.0`."""
    node: str
    """Ray's id of the node it runs on: gateways of the same node use its Unix socket."""
    addresses: tuple[str, ...]
    """Where its lane server listens: `unix:/path` first, then `tcp:host:port`."""
    key: str = Field(default="", repr=False)
    """Hexadecimal secret that gateways prove they know before they may send it work; a new one at every start."""


class CachePurge(Record):
    """Answers that no cache may keep."""

    number: int
    """The snapshot that said so first: a gateway that holds an older one has yet to obey."""
    key: str | None
    """The surrogate key that they bear; None is all of them."""


class Snapshot(Record):
    """Immutable, numbered state that gateways hold. Numbers only rise, also across restarts of the coordinator."""

    number: int = 0
    epoch: str = ""
    """The life of the coordinator that made it."""
    routes: tuple[RouteSpec, ...] = ()
    """They know the experiments that they name, and how these stand."""
    experiments: tuple[ExperimentSpec, ...] = ()
    """As configured."""
    trials: dict[str, Trial] = {}
    """By experiment, its latest run."""
    models: dict[str, ModelSpec] = {}
    """Specification of every version with a replica, by `model@version`."""
    replicas: tuple[ReplicaRecord, ...] = ()
    settings: dict[str, dict[str, Any]] = {}
    """Live settings by `model@version`, where somebody changed them."""
    standings: dict[str, dict[str, Standing]] = {}
    """Where versions stand, by route and `model@version`; those without a word against them are left out."""
    demotions: tuple[DemotionRecord, ...] = ()
    """The latest verdicts against versions, oldest first."""
    purges: tuple[CachePurge, ...] = ()
    """The latest purges of response caches, oldest first."""
    shadow_resets: dict[str, dict[str, int]] = {}
    """How often people have reset what a shadow has shown, by route and `model@version`; never is left out."""
    seed: str = ""
    """Digest of the routes last taken from a gateway's configuration file."""
