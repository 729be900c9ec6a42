"""Metrics: every name has its sentence, and the numbers are right after known traffic."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.metrics import SENTENCES
from tests.in_process import DataPlaneInProcess
from tests.router.wire import IRIS, Wire, iris, post, request

Samples = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture
def text(plane: DataPlaneInProcess) -> str:
    """What is exposed after ten good requests, two bad ones, one refused and one to a version of its own."""
    replica = plane.replica("iris@1.0.0")
    gateway = plane.gateway()
    with Wire(gateway) as wire:
        for _ in range(10):
            assert wire.send(post(IRIS, iris(2))).answer().status == 200
        for _ in range(2):
            assert wire.send(post(IRIS, b"nonsense")).answer().status == 400
        assert wire.send(request("POST", IRIS)).answer().status == 411
        assert wire.send(post("/v2/models/iris/versions/1.0.0/infer", iris())).answer().status == 200
    assert replica.batcher.counters.succeeded == 11
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway.spec.admin_port}") as client:
        plane.until(lambda: bool(gateway._servers[1:]))
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


def samples(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    [number] = [n for given, n in found[name] if labels.items() <= given.items()]
    return number


def test_every_metric_has_its_sentence_and_every_sentence_its_metric(text: str) -> None:
    families = {family.name: family.documentation for family in text_string_to_metric_families(text)}
    assert families == SENTENCES
    assert all(sentence.endswith(".") for sentence in SENTENCES.values())


def test_numbers_are_right_after_known_traffic(text: str) -> None:
    found = samples(text)
    assert value(found, "nstarx_requests_total", role="primary", code="200") == 10
    assert value(found, "nstarx_requests_total", role="primary", code="400") == 2
    assert value(found, "nstarx_requests_total", role="direct", code="200") == 1
    assert value(found, "nstarx_requests_refused_total", code="411") == 1
    assert value(found, "nstarx_requests_in_flight", role="primary") == 0
    assert value(found, "nstarx_request_retries_total", role="primary") == 0
    assert value(found, "nstarx_request_duration_seconds_count", role="primary") == 12
    assert 0 < value(found, "nstarx_request_duration_seconds_sum", role="primary") < 12
    assert value(found, "nstarx_version_replicas", version="iris@1.0.0") == 1
    assert value(found, "nstarx_replica_requests_total", outcome="succeeded") == 11
    assert value(found, "nstarx_replica_requests_total", outcome="failed") == 2
    assert value(found, "nstarx_batch_size_sum") == 21
    assert value(found, "nstarx_batch_size_bucket", le="1") == 1
    assert value(found, "nstarx_batch_size_bucket", le="2") == 11
    assert value(found, "nstarx_run_duration_seconds_count") == 11
    assert value(found, "nstarx_replica_backlog") == 0
    assert value(found, "nstarx_replica_memory_bytes") > 1_000_000


def test_buckets_of_histograms_rise_to_their_count(text: str) -> None:
    found = samples(text)
    for name in SENTENCES:
        series: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
        for labels, number in found.get(f"{name}_bucket", []):
            bound = float(labels.pop("le"))
            series.setdefault(frozenset(labels.items()), []).append((bound, number))
        for labels_, pairs in series.items():
            counts = [number for _, number in sorted(pairs)]
            assert counts == sorted(counts)
            assert counts[-1] == value(found, f"{name}_count", **dict(labels_))
