"""Every metric, with its sentence. Prometheus text, made when somebody scrapes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from judging.standing import STATES
from nstarx.histogram import cumulative

CALL = ("gateway", "route", "version", "role")
"""Labels of what gateways count for each version."""
ROUTE = ("gateway", "route")
REPLICA = ("version", "replica")
RESULTS = {"hit": "hits", "miss": "misses", "shared": "followers", "bypass": "bypasses"}
"""What `x-nstarx-cache` says, to the counter of it."""
LIMIT = ("gateway", "route", "limit")
GATE = ("gateway", "route", "version")

SENTENCES = {
    "nstarx_requests": "Inference requests answered, by HTTP status; 499 is a client that went away first.",
    "nstarx_request_duration_seconds": "Time from a request's last byte to its answer, at the gateway.",
    "nstarx_requests_in_flight": "Inference requests that wait for their answer.",
    "nstarx_request_retries": "Requests sent to a further replica, because one died or had no room.",
    "nstarx_request_retries_refused": "Retries that were not made because their share of the requests was used up.",
    "nstarx_hedges": "Replicas asked beside the first, because its answer took long.",
    "nstarx_hedges_won": "Replicas asked beside the first that answered before it.",
    "nstarx_hedges_refused": "Replicas not asked beside the first because the share for that was used up.",
    "nstarx_rate_limited": "Requests answered 429, by the limit that refused them.",
    "nstarx_rate_limit_callers_forgotten": "Callers forgotten too early, because a limit has more than its max_keys.",
    "nstarx_concurrency_limit": "Requests that a version may have under way from one gateway, as its latency is.",
    "nstarx_concurrency": "Requests that a version has under way by this limit.",
    "nstarx_admission_waiting": "Requests that wait until a version has room.",
    "nstarx_admission_rejected": "Requests that found no room in a version, nor in its queue.",
    "nstarx_requests_refused": "Requests refused before a version was chosen: malformed, too large or too slow.",
    "nstarx_rescues": "Requests whose failed, late or invalid answer the stable version's replaced.",
    "nstarx_rescues_refused": "Requests that were not rescued, because the route's budget was spent.",
    "nstarx_invalid_outputs": "Answers of 200 with NaN, infinities or shapes that the signature doesn't promise.",
    "nstarx_excused_failures": "Failures not held against a version, because the stable version failed there too.",
    "nstarx_replica_losses": "Replicas that died with requests in hand.",
    "nstarx_rule_requests": "Requests that a rule of a route has decided about.",
    "nstarx_version_share": "Part of a split's requests that a version has, demotions taken into account; 0 to 1.",
    "nstarx_version_state": "Where a version stands on a route: 1 for its state, 0 for all others.",
    "nstarx_events": "Events of the cluster that the answering gateway has heard of, by kind.",
    "nstarx_cache_requests": "Requests to a route with a cache, by what came of it: hit, miss, shared, or bypass.",
    "nstarx_cache_evictions": "Cached answers dropped before their time, because there was no room.",
    "nstarx_cache_expirations": "Cached answers dropped because they were too old.",
    "nstarx_cache_entries": "Answers that a gateway keeps for a route.",
    "nstarx_cache_bytes": "Memory that they take, bookkeeping included.",
    "nstarx_shadow_pairs": "Requests copied to a shadow, by what became of the pair of answers.",
    "nstarx_shadow_mismatches": "Compared pairs with an output beyond its tolerance.",
    "nstarx_shadow_dropped": "Requests chosen to be copied to a shadow and not sent, by reason.",
    "nstarx_spans": "Spans of traced requests: recorded; exported, dropped for want of room, or taken by no collector.",
    "nstarx_snapshot_number": "Number of the snapshot of routes and replicas that a gateway holds.",
    "nstarx_gateway_start_time_seconds": "When a gateway started, in seconds since 1970.",
    "nstarx_experiment_requests": "Requests that took part in an experiment, by arm.",
    "nstarx_experiment_outcomes": "Outcomes reported for an experiment, by what became of them.",
    "nstarx_experiment_assignments_dropped": "Assignments not kept, because too many waited for the coordinator.",
    "nstarx_replica_ejections": "Replicas that a gateway sent nothing more for a while, by the rule that they broke.",
    "nstarx_replicas_ejected": "Replicas of a version that a gateway sends nothing at the moment.",
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

TRIES = {
    "nstarx_request_retries_refused": "retries_refused",
    "nstarx_hedges": "hedges",
    "nstarx_hedges_won": "hedges_won",
    "nstarx_hedges_refused": "hedges_refused",
}
"""Metric to what tallies call it."""

OUTCOMES = ("succeeded", "failed", "rejected", "expired", "cancelled")
BATCH_BOUNDS = tuple(2**power for power in range(11))

Readings = dict[str, dict[str, Any]]
"""Gateway to its counters."""
Counters = dict[str, tuple[str, dict[str, Any]]]
"""Replica to its version and counters."""


def exposition(
    readings: Readings,
    counters: Counters,
    replicas: dict[str, int],
    shares: Sequence[dict[str, Any]],
    events: Mapping[str, int],
) -> bytes:
    """Prometheus text for everything that gateways and replicas have counted, for how versions stand
    (`router.shares.standing_shares`), and for the events by kind."""
    registry = CollectorRegistry(auto_describe=False)
    of_gateways = (
        _of_gateways, _of_decisions, _of_tries, _of_ejections, _of_limits, _of_caches, _of_traces, _of_shadows,
        _of_experiments,
    )  # fmt: skip
    metrics = [metric for part in of_gateways for metric in part(readings)]
    of_others = _of_standings(shares), _of_events(events), _of_replicas(counters), _of_versions(replicas)
    registry.register(_Collected([*metrics, *chain.from_iterable(of_others)]))
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
    rescued, invalid = _counter("nstarx_rescues", CALL), _counter("nstarx_invalid_outputs", CALL)
    lost, excused = _counter("nstarx_replica_losses", CALL), _counter("nstarx_excused_failures", CALL)
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
            rescued.add_metric(labels, tally["rescued"])
            invalid.add_metric(labels, tally["invalid"])
            lost.add_metric(labels, tally["lost"])
            excused.add_metric(labels, tally.get("excused", 0))
    yield from (requests, durations, in_flight, retries, rescued, invalid, lost, excused, refused, number, started)


def _of_decisions(readings: Readings) -> Iterator[Metric]:
    refused, ruled = _counter("nstarx_rescues_refused", ROUTE), _counter("nstarx_rule_requests", (*ROUTE, "rule"))
    for gateway, reading in readings.items():
        for route, count in reading.get("rescues", {}).items():
            refused.add_metric([gateway, route], count)
        for route, rules in reading.get("rules", {}).items():
            for rule, count in rules.items():
                ruled.add_metric([gateway, route, rule], count)
    yield from (refused, ruled)


def _of_standings(shares: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    part = _gauge("nstarx_version_share", ("route", "rule", "version"))
    state = _gauge("nstarx_version_state", ("route", "version", "state"))
    for row in shares:
        part.add_metric([row["route"], row["rule"] or "", row["version"]], row["share"])
    standing = {(row["route"], row["version"]): row["state"] for row in shares}
    for (route, version), present in standing.items():
        for name in STATES:
            state.add_metric([route, version, name], name == present)
    yield from (part, state)


def _of_events(events: Mapping[str, int]) -> Iterator[Metric]:
    counted = _counter("nstarx_events", ("kind",))
    for kind, count in events.items():
        counted.add_metric([kind], count)
    yield counted


def _of_traces(readings: Readings) -> Iterator[Metric]:
    spans = _counter("nstarx_spans", ("gateway", "outcome"))
    for gateway, reading in readings.items():
        for outcome, count in reading.get("traces", {}).items():
            spans.add_metric([gateway, outcome], count)
    yield spans


def _of_caches(readings: Readings) -> Iterator[Metric]:
    requests = _counter("nstarx_cache_requests", (*ROUTE, "result"))
    evictions, expirations = _counter("nstarx_cache_evictions", ROUTE), _counter("nstarx_cache_expirations", ROUTE)
    entries, size = _gauge("nstarx_cache_entries", ROUTE), _gauge("nstarx_cache_bytes", ROUTE)
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


def _of_experiments(readings: Readings) -> Iterator[Metric]:
    requests = _counter("nstarx_experiment_requests", ("gateway", "experiment", "arm"))
    outcomes = _counter("nstarx_experiment_outcomes", ("gateway", "experiment", "recording"))
    dropped = _counter("nstarx_experiment_assignments_dropped", ("gateway",))
    for gateway, reading in readings.items():
        counted = reading["experiments"]
        for metric, counts in ((requests, counted["requests"]), (outcomes, counted["outcomes"])):
            for experiment, parts in counts.items():
                for part, count in parts.items():
                    metric.add_metric([gateway, experiment, part], count)
        dropped.add_metric([gateway], counted["dropped"])
    yield from (requests, outcomes, dropped)


def _of_tries(readings: Readings) -> Iterator[Metric]:
    """Further replicas asked, beside the first or after it."""
    for name, field in TRIES.items():
        counter = _counter(name, CALL)
        for gateway, reading in readings.items():
            for tally in reading["tallies"]:
                counter.add_metric([gateway, tally["route"], tally["ref"], tally["role"]], tally[field])
        yield counter


def _of_ejections(readings: Readings) -> Iterator[Metric]:
    ejections = _counter("nstarx_replica_ejections", ("gateway", "version", "rule"))
    ejected = _gauge("nstarx_replicas_ejected", ("gateway", "version"))
    for gateway, reading in readings.items():
        out = Counter(entry["ref"] for entry in reading["ejected"])
        for entry in reading["ejections"]:
            ejections.add_metric([gateway, entry["ref"], entry["rule"]], entry["count"])
        for ref in sorted({entry["ref"] for entry in reading["ejections"]}):
            ejected.add_metric([gateway, ref], out[ref])
    yield from (ejections, ejected)


def _of_limits(readings: Readings) -> Iterator[Metric]:
    refused = _counter("nstarx_rate_limited", LIMIT)
    forgotten = _counter("nstarx_rate_limit_callers_forgotten", LIMIT)
    limit, present = _gauge("nstarx_concurrency_limit", GATE), _gauge("nstarx_concurrency", GATE)
    waiting, rejected = _gauge("nstarx_admission_waiting", GATE), _counter("nstarx_admission_rejected", GATE)
    for gateway, reading in readings.items():
        for entry in reading["limits"]:
            refused.add_metric([gateway, entry["route"], entry["limit"]], entry["refused"])
            forgotten.add_metric([gateway, entry["route"], entry["limit"]], entry["forgotten"])
        for entry in reading["admission"]:
            labels = [gateway, entry["route"], entry["ref"]]
            limit.add_metric(labels, entry["limit"])
            present.add_metric(labels, entry["in_flight"])
            waiting.add_metric(labels, entry["waiting"])
            rejected.add_metric(labels, entry["rejected"])
    yield from (refused, forgotten, limit, present, waiting, rejected)


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
