"""What the coordinator tells gateways, and what replicas tell the coordinator."""

from typing import Any

from pydantic import Field

from nstarx.spec.model import ModelSpec
from nstarx.spec.record import Record
from nstarx.spec.route import RouteSpec


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


class Snapshot(Record):
    """Immutable, numbered state that gateways hold. Numbers only rise, also across restarts of the coordinator."""

    number: int = 0
    epoch: str = ""
    """The life of the coordinator that made it."""
    routes: tuple[RouteSpec, ...] = ()
    models: dict[str, ModelSpec] = {}
    """Specification of every version with a replica, by `model@version`."""
    replicas: tuple[ReplicaRecord, ...] = ()
    settings: dict[str, dict[str, Any]] = {}
    """Live settings by `model@version`, where somebody changed them."""
    seed: str = ""
    """Digest of the routes last taken from a gateway's configuration file."""
