"""Routes of one model by path prefix and by host: every endpoint is there, and nothing of other tenants is."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument
from router.prefixed import prefix_of
from tests.in_process import DataPlaneInProcess
from tests.router.wire import iris

OLD, NEW = "iris@1.0.0", "iris@1.1.0"
ROUTES = [
    {"model": "iris", "split": {"weighted": {OLD: 1}}, "direct": False},
    {"model": "iris", "path_prefix": "/team-a", "split": {"weighted": {NEW: 1}}},
    {"model": "iris", "path_prefix": "/a/v2", "split": {"weighted": {NEW: 1}}},
    {"model": "iris", "hosts": ["new.example"], "split": {"weighted": {NEW: 1}}},
    {"model": "secret", "hosts": ["other.example"], "split": {"weighted": {NEW: 1}}},
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    plane = DataPlaneInProcess()
    for ref in (OLD, NEW):
        plane.replica(ref)
    gateway = plane.gateway(parse(RoutesDocument, {"routes": ROUTES}, "routes").routes, model_control="explicit")
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway.spec.port}") as client:
        yield client
    plane.close()


def model(client: httpx.Client, path: str, host: str | None = None) -> Any:
    return client.get(path, headers={"host": host} if host else {}).json()


@pytest.mark.parametrize("prefix", ["/team-a", "/a/v2"])
def test_every_endpoint_of_a_model_is_below_its_prefix(client: httpx.Client, prefix: str) -> None:
    at = f"{prefix}/v2/models/iris"
    assert model(client, at)["versions"] == ["1.1.0"]
    assert model(client, f"{at}/versions/1.1.0")["versions"] == ["1.1.0"]
    assert model(client, f"{at}/ready") == {"name": "iris", "ready": True}
    assert model(client, f"{at}/config")["name"] == "iris"
    assert [stats["version"] for stats in model(client, f"{at}/stats")["model_stats"]] == ["1.1.0"]
    assert client.post(f"{at}/infer", content=iris()).headers["x-nstarx-version"] == NEW
    assert client.post(f"{at}/versions/1.0.0/infer", content=iris()).headers["x-nstarx-version"] == OLD
    for path in ("", "/health/live", "/health/ready"):
        assert client.get(f"{prefix}/v2{path}").status_code == 200


def test_what_is_about_all_models_is_not_below_a_prefix(client: httpx.Client) -> None:
    for path in ("/v2/repository/index", "/v2/repository/models/digits/load", "/v2/repository/models/iris/unload"):
        assert client.post(f"/team-a{path}").status_code == 404
    assert client.get("/team-a/v2/models/stats").status_code == 404
    assert client.get("/v2/models/stats").status_code == 200


def test_models_of_others_are_not_told(client: httpx.Client) -> None:
    error = client.get("/team-a/v2/models/none").json()["error"]
    assert error == "model 'none' is not served here; served are: iris"
    assert "secret" not in model(client, "/v2/models/none", "new.example")["error"]
    assert "secret" in model(client, "/v2/models/none", "other.example")["error"]


def test_prefix_that_no_route_has_is_nothing(client: httpx.Client) -> None:
    assert client.get("/team-b/v2/models/iris").status_code == 404
    assert client.post("/team-b/v2/models/iris/infer", content=iris()).status_code == 404
    assert client.get("/team-a/v2x/models/iris").status_code == 404


def test_host_decides_about_every_endpoint(client: httpx.Client) -> None:
    assert model(client, "/v2/models/iris")["versions"] == ["1.0.0"]
    assert model(client, "/v2/models/iris", "NEW.example")["versions"] == ["1.1.0"]
    assert model(client, "/v2/models/iris/stats", "new.example")["model_stats"][0]["version"] == "1.1.0"
    assert model(client, "/v2/models/iris/ready", "new.example")["ready"]


def test_version_that_clients_may_not_choose_is_told_so(client: httpx.Client) -> None:
    for answer in (
        client.post("/v2/models/iris/versions/1.1.0/infer", content=iris()),
        client.get("/v2/models/iris/versions/1.1.0"),
        client.get("/v2/models/iris/versions/9.9.9/ready"),
    ):
        sentence = (
            "route 'iris' does not let clients choose a version; ask /v2/models/iris/infer, and its split decides"
        )
        assert (answer.status_code, answer.json()["error"]) == (404, sentence)
    assert client.get("/v2/models/iris/versions/1.1.0", headers={"host": "new.example"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v2/models/iris", ""),
        ("/a/v2", "/a"),
        ("/a/v2/models/x", "/a"),
        ("/a/v2/v2/models/x", "/a/v2"),
        ("/a/v22/models/x", ""),
        ("/a/b/v2/models/x", ""),
        ("/a", ""),
        ("", ""),
    ],
)
def test_longest_known_prefix_is_taken(path: str, found: str) -> None:
    assert prefix_of(path, {"/a", "/a/v2", ""}) == found
