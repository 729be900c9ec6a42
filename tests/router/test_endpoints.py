"""Every endpoint beside inference, with and without a version."""

from collections.abc import Iterator

import httpx
import pytest

from nstarx import __version__
from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec
from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess
from tests.router.test_failures import crash
from tests.router.wire import connections, flaky, hanging, in_flight

PATHS = ["/v2/models/iris", "/v2/models/iris/versions/1.0.0"]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway.spec.port}") as client:
        yield client


def http(gateway: Gateway) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{gateway.spec.port}")


def test_server_says_what_it_is(client: httpx.Client) -> None:
    answer = client.get("/v2").json()
    assert (answer["name"], answer["version"]) == ("nstarx", __version__)
    assert "binary_tensor_data" in answer["extensions"]


def test_server_is_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("path", PATHS)
def test_model_describes_itself(client: httpx.Client, path: str) -> None:
    answer = client.get(path).json()
    assert (answer["name"], answer["versions"], answer["platform"]) == ("iris", ["1.0.0"], "onnxruntime_onnx")
    assert answer["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert [tensor["name"] for tensor in answer["outputs"]] == ["label", "probabilities"]


@pytest.mark.parametrize("path", PATHS)
def test_model_is_ready(client: httpx.Client, path: str) -> None:
    assert client.get(path + "/ready").json() == {"name": "iris", "ready": True}


@pytest.mark.parametrize("path", PATHS)
def test_model_has_a_configuration(client: httpx.Client, path: str) -> None:
    answer = client.get(path + "/config").json()
    assert (answer["name"], answer["max_batch_size"], answer["backend"]) == ("iris", 128, "onnxruntime")


def test_statistics_count_what_was_asked(client: httpx.Client) -> None:
    path = "/v2/models/flaky"
    [before] = client.get(path + "/stats").json()["model_stats"]
    client.post(path + "/infer", content=flaky(1.0))
    [after] = client.get(path + "/versions/1.0.0/stats").json()["model_stats"]
    assert after["inference_count"] == before["inference_count"] + 1
    assert after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"] + 1
    everything = client.get("/v2/models/stats").json()["model_stats"]
    assert [(entry["name"], entry["version"]) for entry in everything] == [
        ("echo", "1.0.0"),
        ("flaky", "1.0.0"),
        ("iris", "1.0.0"),
    ]


def test_repository_index_lists_what_is_stored_and_what_is_ready(client: httpx.Client) -> None:
    index = {(e["name"], e["version"]): e["state"] for e in client.post("/v2/repository/index").json()}
    assert index[("iris", "1.0.0")] == "READY"
    assert index[("iris", "1.1.0")] == "UNAVAILABLE"
    ready = client.post("/v2/repository/index", json={"ready": True}).json()
    assert {entry["name"] for entry in ready} == {"iris", "echo", "flaky"}


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b'{"ready": 1}'])
def test_repository_index_refuses_nonsense(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v2/repository/index", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("end", ["", "/ready", "/config", "/stats"])
def test_unknown_model_or_version_is_not_found_and_told_what_there_is(client: httpx.Client, end: str) -> None:
    answer = client.get("/v2/models/none" + end)
    assert (answer.status_code, "echo, flaky, iris" in answer.json()["error"]) == (404, True)
    answer = client.get("/v2/models/iris/versions/9.9.9" + end)
    assert (answer.status_code, "1.0.0" in answer.json()["error"]) == (404, True)


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_clients_may_not_load_models_unless_that_is_configured(client: httpx.Client, verb: str) -> None:
    answer = client.post(f"/v2/repository/models/iris/{verb}")
    assert (answer.status_code, "model_control: explicit" in answer.json()["error"]) == (501, True)


def test_ready_tells_the_truth_from_start_to_drain(plane: DataPlaneInProcess) -> None:
    gateway = plane.gateway()
    with http(gateway) as client:
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        replica = plane.replica("iris@1.0.0")
        plane.settle(gateway)
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2/models/iris/ready").status_code == 200
        crash(plane, replica)
        plane.until(lambda: not gateway.lanes())
        assert client.get("/v2/health/ready").json() == {"ready": False}
        answer = client.get("/v2/models/iris/ready")
        assert (answer.status_code, answer.json()) == (503, {"name": "iris", "ready": False})


def test_ready_is_false_while_the_gateway_drains(plane: DataPlaneInProcess) -> None:
    plane.replica("flaky@1.0.0")
    gateway = plane.gateway(drain_s=30.0)
    with http(gateway) as client, http(gateway) as other:
        assert other.get("/v2/models/flaky/ready").status_code == 200
        assert client.get("/v2/health/ready").status_code == 200
        with hanging(plane):
            stopping = plane.thread.submit(gateway.stop())
            plane.until(lambda: gateway.draining)
            answer = client.get("/v2/health/ready")
            assert (answer.status_code, answer.headers["connection"]) == (503, "close")
            assert other.get("/v2/models/flaky/ready").status_code == 503
    stopping.result(timeout=10)
    assert not connections(gateway)
    assert in_flight(gateway) == 0


def test_route_under_a_name_of_its_own_answers_as_a_model(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    plane.replica("iris@1.1.0")
    split = SplitSpec(weighted={"iris@1.0.0": 1, "iris@1.1.0": 3})
    gateway = plane.gateway((RouteSpec(model="flowers", split=split),))
    with http(gateway) as client:
        answer = client.get("/v2/models/flowers").json()
        assert (answer["name"], answer["versions"]) == ("flowers", ["1.0.0", "1.1.0"])
        answer = client.get("/v2/models/flowers/versions/7.0.0")
        assert (answer.status_code, "flowers" in answer.json()["error"]) == (404, True)
        assert "1.0.0, 1.1.0" in answer.json()["error"]
        assert "flowers, iris" in client.get("/v2/models/none").json()["error"]
        assert client.get("/v2/models/flowers/ready").json() == {"name": "flowers", "ready": True}
        names = [entry["version"] for entry in client.get("/v2/models/flowers/stats").json()["model_stats"]]
        assert names == ["1.0.0", "1.1.0"]


def test_python_model_may_leave_out_optional_outputs(plane: DataPlaneInProcess) -> None:
    plane.replica("echo@1.0.0")
    gateway = plane.gateway()
    url = f"http://127.0.0.1:{gateway.spec.port}/v2/models/echo/infer"
    number = {"name": "int8", "shape": [2], "datatype": "INT8", "data": [1, -2]}
    answer = httpx.post(url, json={"inputs": [number]}).json()
    assert answer["outputs"] == [{"name": "int8", "datatype": "INT8", "shape": [2], "data": [1, -2]}]
    missing = httpx.post(url, json={"inputs": [number], "outputs": [{"name": "fp32"}]})
    assert missing.status_code == 400
    assert "output 'fp32' was asked for" in missing.json()["error"]


def test_route_rules_hold_on_the_way_to_one_version(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    split = SplitSpec(weighted={"iris@1.0.0": 1})
    gateway = plane.gateway((RouteSpec(model="iris", split=split, timeout_s=7, idempotent=False),))
    target = gateway.table.at(b"/v2/models/iris/versions/1.0.0/infer")
    assert target
    direct = target.route
    assert (direct.timeout_s, direct.idempotent) == (7, False)
