"""Every metric, with its sentence. Prometheus text, made when somebody scrapes."""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from nstarx.histogram import cumulative

CALL = ("gateway", "route", "version", "role")
"""Labels of what gateways count. `role`: primary (the split chose the version) or direct (the client named it)."""
CACHE = ("gateway", "route")
REPLICA = ("version", "replica")
RESULTS = {"hit": "hits", "miss": "misses", "shared": "followers", "bypass": "bypasses"}
"""What `x-nstarx-cache` says, to the counter of it."""

SENTENCES = {
    "nstarx_requests": "Inference requests answered, by HTTP status; 499 is a client that went away first.",
    "nstarx_request_duration_seconds": "Time from a request's last byte to its answer, at the gateway.",
    "nstarx_requests_in_flight": "Inference requests that wait for their answer.",
    "nstarx_request_retries": "Requests sent to a further replica, because one died or had no room.",
    "nstarx_requests_refused": "Requests refused before a version was chosen: malformed, too large or too slow.",
    "nstarx_cache_requests": "Requests to a route with a cache, by what came of it: hit, miss, shared, or bypass.",
    "nstarx_cache_evictions": "Cached answers dropped before their time, because there was no room.",
    "nstarx_cache_expirations": "Cached answers dropped because they were too old.",
    "nstarx_cache_entries": "Answers that a gateway keeps for a route.",
    "nstarx_cache_bytes": "Memory that they take, bookkeeping included.",
    "nstarx_shadow_pairs": "Requests copied to a shadow, by what became of the pair of answers.",
    "nstarx_shadow_mismatches": "Compared pairs with an output beyond its tolerance.",
    "nstarx_shadow_dropped": "Requests chosen to be copied to a shadow and not sent, by reason.",
    "nstarx_snapshot_number": "Number of the snapshot of routes and replicas that a gateway holds.",
    "nstarx_gateway_start_time_seconds": "When a gateway started, in seconds since 1970.",
    "nstarx_version_replicas": "Replicas of a version that are registered.",
    "nstarx_replica_requests": "Requests that a replica has dealt with, by outcome.",
    "nstarx_queue_wait_seconds": "Time that requests waited in a replica for their run.",
    "nstarx_run_duration_seconds": "Time that a model took for one run.",
    "nstarx_batch_size": "Rows in one run of a model.",
    "nstarx_replica_backlog": "Requests waiting or running in a replica.",
    "nstarx_replica_cpu_seconds": "CPU time that a replica's process has used.",
    "nstarx_replica_memory_bytes": "Resident memory of a replica's process.",
}
"""Name (counters without their `_total`) to what it means."""

OUTCOMES = ("succeeded", "failed", "rejected", "expired", "cancelled")
BATCH_BOUNDS = tuple(2**power for power in range(11))

Readings = dict[str, dict[str, Any]]
"""Gateway to its counters."""
Counters = dict[str, tuple[str, dict[str, Any]]]
"""Replica to its version and counters."""


def exposition(readings: Readings, counters: Counters, replicas: dict[str, int]) -> bytes:
    """Prometheus text for everything that gateways and replicas have counted."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        _Collected(
            [
                *_of_gateways(readings),
                *_of_caches(readings),
                *_of_shadows(readings),
                *_of_replicas(counters),
                *_of_versions(replicas),
            ]
        )
    )
    return generate_latest(registry)


class _Collected:
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _counter(name: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(name, SENTENCES[name], labels=labels)


def _gauge(name: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, SENTENCES[name], labels=labels)


def _histogram(name: str, labels: tuple[str, ...]) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, SENTENCES[name], labels=labels)


def _of_gateways(readings: Readings) -> Iterator[Metric]:
    requests, durations = (
        _counter("nstarx_requests", (*CALL, "code")),
        _histogram("nstarx_request_duration_seconds", CALL),
    )
    in_flight, retries = _gauge("nstarx_requests_in_flight", CALL), _counter("nstarx_request_retries", CALL)
    refused = _counter("nstarx_requests_refused", ("gateway", "code"))
    number = _gauge("nstarx_snapshot_number", ("gateway",))
    started = _gauge("nstarx_gateway_start_time_seconds", ("gateway",))
    for gateway, reading in readings.items():
        number.add_metric([gateway], reading["snapshot"])
        started.add_metric([gateway], reading["started"])
        for code, count in reading["refused"].items():
            refused.add_metric([gateway, str(code)], count)
        for tally in reading["tallies"]:
            labels = [gateway, tally["route"], tally["ref"], tally["role"]]
            for code, count in tally["codes"].items():
                requests.add_metric([*labels, str(code)], count)
            durations.add_metric(labels, _buckets(tally["latency"]), tally["latency_ns"] / 1e9)
            in_flight.add_metric(labels, tally["started"] - sum(tally["codes"].values()))
            retries.add_metric(labels, tally["retries"])
    yield from (requests, durations, in_flight, retries, refused, number, started)


def _of_caches(readings: Readings) -> Iterator[Metric]:
    requests = _counter("nstarx_cache_requests", (*CACHE, "result"))
    evictions, expirations = _counter("nstarx_cache_evictions", CACHE), _counter("nstarx_cache_expirations", CACHE)
    entries, size = _gauge("nstarx_cache_entries", CACHE), _gauge("nstarx_cache_bytes", CACHE)
    for gateway, reading in readings.items():
        for route, cache in reading["caches"].items():
            for result, counter in RESULTS.items():
                requests.add_metric([gateway, route, result], cache[counter])
            evictions.add_metric([gateway, route], cache["evictions"])
            expirations.add_metric([gateway, route], cache["expirations"])
            entries.add_metric([gateway, route], cache["entries"])
            size.add_metric([gateway, route], cache["bytes"])
    yield from (requests, evictions, expirations, entries, size)


def _of_shadows(readings: Readings) -> Iterator[Metric]:
    labels = ("gateway", "route", "version")
    pairs, dropped = (
        _counter("nstarx_shadow_pairs", (*labels, "outcome")),
        _counter("nstarx_shadow_dropped", (*labels, "reason")),
    )
    mismatches = _counter("nstarx_shadow_mismatches", labels)
    for gateway, reading in readings.items():
        for shadow in reading.get("shadows", ()):
            values = [gateway, shadow["route"], shadow["ref"]]
            mismatches.add_metric(values, shadow["mismatched"])
            for outcome, count in shadow["outcomes"].items():
                pairs.add_metric([*values, outcome], count)
            for reason, count in shadow["drops"].items():
                dropped.add_metric([*values, reason], count)
    yield from (pairs, mismatches, dropped)


def _of_replicas(counters: Counters) -> Iterator[Metric]:
    requests = _counter("nstarx_replica_requests", (*REPLICA, "outcome"))
    waits, runs = _histogram("nstarx_queue_wait_seconds", REPLICA), _histogram("nstarx_run_duration_seconds", REPLICA)
    batches, backlog = _histogram("nstarx_batch_size", REPLICA), _gauge("nstarx_replica_backlog", REPLICA)
    cpu = _counter("nstarx_replica_cpu_seconds", REPLICA)
    memory = _gauge("nstarx_replica_memory_bytes", REPLICA)
    for replica, (version, count) in counters.items():
        labels = [version, replica]
        for outcome in OUTCOMES:
            requests.add_metric([*labels, outcome], count[outcome])
        waits.add_metric(labels, _buckets(count["queue"]), count["queued_ns"] / 1e9)
        runs.add_metric(labels, _buckets(count["run"]), count["infer_ns"] / 1e9)
        batches.add_metric(labels, _batch_buckets(count["batches"]), count["rows"])
        backlog.add_metric(labels, count["backlog"])
        cpu.add_metric(labels, count["cpu_s"])
        memory.add_metric(labels, count["rss_bytes"])
    yield from (requests, waits, runs, batches, backlog, cpu, memory)


def _of_versions(replicas: dict[str, int]) -> Iterator[Metric]:
    live = _gauge("nstarx_version_replicas", ("version",))
    for version, count in replicas.items():
        live.add_metric([version], count)
    yield live


def _buckets(histogram: list[int]) -> list[tuple[str, float]]:
    below: list[tuple[str, float]] = [(repr(bound), count) for bound, count in cumulative(histogram)]
    return [*below, ("+Inf", sum(histogram))]


def _batch_buckets(batches: dict[Any, int]) -> list[tuple[str, float]]:
    sizes = [(int(size), runs) for size, runs in batches.items()]
    below: list[tuple[str, float]] = [
        (str(bound), sum(runs for size, runs in sizes if size <= bound)) for bound in BATCH_BOUNDS
    ]
    return [*below, ("+Inf", sum(runs for _, runs in sizes))]
