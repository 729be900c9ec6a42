"""Traces: which requests become OpenTelemetry spans, and where those go."""

from typing import Annotated

from pydantic import AfterValidator, Field

from nstarx.spec.record import Record


def _http_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"'{url}' is not a URL; write it like http://127.0.0.1:4318/v1/traces")
    return url


class TracingSpec(Record):
    """Export of OpenTelemetry spans, with the extra `otel`. Gateways trace nothing unless they are asked to.

    `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_CERTIFICATE` and `OTEL_RESOURCE_ATTRIBUTES` in the environment
    count as they do for every OpenTelemetry SDK.
    """

    endpoint: Annotated[str, AfterValidator(_http_url)] = "http://127.0.0.1:4318/v1/traces"
    """Where spans go: OTLP over HTTP, the path included."""
    sample_ratio: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.01
    """Share of requests that are traced where no caller has decided."""
    follow_parent: bool = True
    """Trace what a caller's `traceparent` says is traced, and nothing else of that caller. False: the gateway decides
    by the caller's trace id, as other services with the same ratio do."""
    service_name: Annotated[str, Field(min_length=1)] = "nstarx-gateway"
    """`service.name` of the spans."""
    max_queue_spans: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Spans of one gateway process that wait for their export; more are dropped and counted."""
    interval_s: Annotated[float, Field(gt=0, le=60, strict=False)] = 1.0
    """How often they are exported."""
    export_timeout_s: Annotated[float, Field(gt=0, le=60, strict=False)] = 10.0
    """How long one export may take, repetitions included; what isn't taken by then is dropped and counted."""
