"""The request path through real Ray Serve replicas, and what may happen to it under load."""

import os
import signal
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from cluster.ray_coordination import RayCoordination
from cluster.thread import LoopThread
from nstarx.client import Admin
from nstarx.spec.cluster import GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH
from tests.end_to_end.conftest import SHARES, VERSIONS, Served, gateway_args, until
from tests.load import load

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

FLOWER = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)


def split(weights: dict[str, float]) -> dict[str, Any]:
    return {"routes": [{"model": "iris", "split": {"weighted": weights}}]}


def processes(name: str) -> list[int]:
    """Pids of the Ray workers whose title says this."""
    import psutil

    return [p.pid for p in psutil.process_iter(["cmdline"]) if name in " ".join(p.info["cmdline"] or [])]


def replica_pids(slug: str) -> list[int]:
    return processes(f"ServeReplica:{slug}:")


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_stock_client_gets_the_models_answer(served: Served, binary: bool) -> None:
    flower = triton.InferInput("x", [1, 4], "FP32")
    flower.set_data_from_numpy(FLOWER, binary_data=binary)
    with triton.InferenceServerClient(served.url) as client:
        assert client.is_server_ready()
        result = client.infer("iris", [flower], model_version="1.0.0", request_id="a flower")
    assert result.as_numpy("label").tolist() == [0]
    assert result.as_numpy("probabilities").shape == (1, 3)
    assert result.get_response()["model_version"] == "1.0.0"
    assert result.get_response()["id"] == "a flower"


def test_statistics_and_metrics_come_from_the_replicas(served: Served) -> None:
    with triton.InferenceServerClient(served.url) as client, served.admin as admin:
        before = client.get_inference_statistics("iris", "1.1.0")["model_stats"][0]["inference_count"]
        for _ in range(3):
            flower = triton.InferInput("x", [1, 4], "FP32")
            flower.set_data_from_numpy(FLOWER)
            client.infer("iris", [flower], model_version="1.1.0")
        after = client.get_inference_statistics("iris", "1.1.0")["model_stats"][0]["inference_count"]
        metrics = admin.ask("GET", "/metrics").text
    assert after - before == 3
    assert 'nstarx_replica_memory_bytes{replica="iris@1.1.0-' in metrics
    assert 'nstarx_batch_size_count{replica="iris@1.1.0-' in metrics


def test_weights_change_under_load_without_a_failed_request(served: Served) -> None:
    with served.admin as admin:
        with load(served.port) as requests:
            for candidate in (50.0, 10.0, 90.0):
                admin.apply_routes(split({"iris@1.0.0": 100 - candidate, "iris@1.1.0": candidate}))
                seen = requests.total
                until(lambda seen=seen: requests.total > seen + 500)  # type: ignore[misc]
        assert not requests.failed
        admin.apply_routes(split(SHARES))


def test_shares_are_exact(served: Served) -> None:
    with served.admin as admin:
        admin.apply_routes(split({"iris@1.0.0": 70, "iris@1.1.0": 30}))
        until(lambda: len({g["snapshot"] for g in admin.status()["gateways"]}) == 1)
        with load(served.port, most=2000) as requests:
            until(lambda: requests.total >= 2000)
        admin.apply_routes(split(SHARES))
    assert not requests.failed
    # Each of the two gateways keeps within one request of the shares.
    assert abs(requests.answered["iris@1.1.0"] - 0.3 * requests.total) <= 2 + 2


def test_replica_killed_under_load_costs_no_request(served: Served) -> None:
    with load(served.port, "/v2/models/iris/versions/1.0.0/infer") as requests:
        killed = replica_pids("iris-1.0.0")[0]
        os.kill(killed, signal.SIGKILL)
        seen = requests.total
        until(lambda: requests.total > seen + 1000)
        until(lambda: killed not in replica_pids("iris-1.0.0") and served.replicas() == VERSIONS)
    assert not requests.failed


def test_coordinator_killed_under_load_costs_no_request_and_no_route(served: Served) -> None:
    thread = LoopThread("test")
    coordination = RayCoordination()
    with served.admin as admin:
        routes, _ = admin.routes()
        with load(served.port) as requests:
            killed = thread.submit(coordination.pid()).result()
            os.kill(killed, signal.SIGKILL)
            until(lambda: admin.status()["coordinator"] == "present" and served.replicas() == VERSIONS)
            seen = requests.total
            until(lambda: requests.total > seen + 500)
        assert thread.submit(coordination.pid()).result() != killed
        until(lambda: admin.routes()[0] == routes)
    thread.stop()
    assert not requests.failed


def test_gateway_that_stops_under_load_costs_no_request(served: Served) -> None:
    from cluster.applications import run

    def scale(count: int) -> None:
        run([(GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, gateway_args(*served, processes=count))])
        until(lambda: len(processes("ServeReplica:nstarx-gateway:")) == count)

    with load(served.port) as requests:
        scale(1)
        seen = requests.total
        until(lambda: requests.total > seen + 500)
    scale(2)
    until(lambda: served.replicas() == VERSIONS)
    assert not requests.failed


def test_hung_replica_is_replaced(served: Served) -> None:
    with served.admin as admin:
        [hung] = replica_pids("flaky-1.0.0")
        admin.apply_settings("flaky@1.0.0", {"hang": True})
        with triton.InferenceServerClient(served.url, network_timeout=300) as client:
            number = triton.InferInput("x", [1], "FP32")
            number.set_data_from_numpy(np.ones(1, np.float32))
            until(lambda: fails(client, number))
            until(lambda: hung not in replica_pids("flaky-1.0.0") and served.replicas() == VERSIONS, 150)
            admin.apply_settings("flaky@1.0.0", {"hang": False})
            until(lambda: not fails(client, number))
            assert client.infer("flaky", [number]).as_numpy("y").tolist() == [2.0]


def fails(client: Any, number: Any) -> bool:
    """Whether a request is not answered within half a second."""
    try:
        client.infer("flaky", [number], headers={"x-request-timeout-seconds": "0.5"})
    except InferenceServerException as error:
        return "0.5 s" in str(error)
    return False


def test_model_is_loaded_and_unloaded_by_a_client(served: Served) -> None:
    with triton.InferenceServerClient(served.url, network_timeout=120) as client:
        assert not ready(client, "digits")
        client.load_model("digits")
        assert client.is_model_ready("digits", "1.0.0")
        states = {m["name"]: m["state"] for m in client.get_model_repository_index()}
        assert states["digits"] == "READY"
        client.unload_model("digits")
        until(lambda: not ready(client, "digits"))
    until(lambda: served.replicas() == VERSIONS)


def ready(client: Any, model: str) -> bool:
    return bool(client.is_model_ready(model))


def test_load_is_spread_over_replicas(served: Served) -> None:
    with served.admin as admin:
        before = answered_by(admin, "iris@1.0.0")
        with load(served.port, "/v2/models/iris/versions/1.0.0/infer", most=1000) as requests:
            until(lambda: requests.total >= 1000)
        spread = answered_by(admin, "iris@1.0.0") - before
    assert not requests.failed
    assert len(spread) == 2
    assert min(spread.values()) > 200


def answered_by(admin: Admin, ref: str) -> Counter[str]:
    """Replica of a version to requests that it has answered."""
    families = text_string_to_metric_families(admin.ask("GET", "/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return Counter(
        {
            sample.labels["replica"]: int(sample.value)
            for sample in samples
            if sample.name == "nstarx_replica_requests_total"
            and sample.labels["version"] == ref
            and sample.labels["outcome"] == "succeeded"
        }
    )
