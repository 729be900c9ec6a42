"""How gateways listen, and what they allow clients."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nstarx.spec.identity import IdentitySpec
from nstarx.spec.model import Count, Seconds
from nstarx.spec.quantity import Bytes
from nstarx.spec.record import Record
from nstarx.spec.tracing import TracingSpec

Port = Annotated[int, Field(ge=1, le=65535)]


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"'{path}' must be an absolute path, since the coordinator may run in another folder")
    return path


class ClientLimits(Record):
    """What one client may send, and how long it may take."""

    max_head_bytes: Bytes = 64 << 10
    """Request line and headers; more is answered 431."""
    max_body_bytes: Bytes = 64 << 20
    """A body; more is answered 413."""
    head_timeout_s: Seconds = 10.0
    """From the first byte of a request to the end of its headers; longer is answered 408."""
    body_timeout_s: Seconds = 60.0
    """From there to the end of its body."""
    keep_alive_s: Seconds = 75.0
    """Idle connections are closed after this."""


class GatewaySpec(Record):
    """The gateways of a cluster."""

    host: str = "127.0.0.1"
    """Where inference listens."""
    port: Port = 8080
    """Inference."""
    admin_port: Port = 8081
    """Administration: metrics, status, routes. On each node, one of its gateways answers there for all."""
    admin_host: str = "127.0.0.1"
    """Where administration listens. It asks nobody who they are: open it to those alone who may change routes."""
    processes: Count = 1
    """Gateway processes in the cluster; those of one node share its port."""
    limits: ClientLimits = ClientLimits()
    drain_s: Annotated[float, Field(ge=0, strict=False)] = 10.0
    """How long a gateway that stops waits for its clients to finish."""
    identity: IdentitySpec | None = None
    """Headers by which a trusted proxy says who calls; null believes nobody."""
    state_dir: Annotated[str, AfterValidator(_absolute)] | None = None
    """Folder for what experiments have seen. The coordinator must find it wherever it runs; null is the user's private
    folder among the temporary files of its machine, by administration port."""
    tracing: TracingSpec | None = None
    """Which requests become OpenTelemetry spans, and where those go; null traces none."""
    model_control: Literal["none", "explicit"] = "none"
    """Whether clients of the inference port may load and unload models; administration always may."""
