"""Administration over HTTP, through the client that the command line uses."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from nstarx.client import Admin, Inference, RemoteError
from nstarx.errors import InvalidRequest, Unavailable
from nstarx.spec.route import RoutesDocument
from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess, free_port
from tests.router.wire import flaky, iris

EVEN = {"routes": [{"model": "iris", "split": {"weighted": {"iris@1.0.0": 1, "iris@1.1.0": 1}}}]}


@pytest.fixture
def admin(served: DataPlaneInProcess, gateway: Gateway) -> Iterator[Admin]:
    with Admin(f"http://127.0.0.1:{gateway.spec.admin_port}") as admin:
        served.until(lambda: _answers(admin))
        yield admin
    served.call(served.coordinator.apply_routes(RoutesDocument()))


def _answers(admin: Admin) -> bool:
    try:
        return bool(admin.status())
    except Unavailable:
        return False


def test_routes_are_shown_applied_and_shown_again(served: DataPlaneInProcess, gateway: Gateway, admin: Admin) -> None:
    document, etag = admin.routes()
    assert document == {"routes": [], "experiments": []}
    applied = admin.apply_routes(EVEN, if_match=etag)
    assert applied["changed"]
    assert ["iris@1.1.0" in warning for warning in applied["warnings"]] == [True]
    document, after = admin.routes()
    assert document["routes"][0]["split"]["weighted"] == {"iris@1.0.0": 1.0, "iris@1.1.0": 1.0}
    assert after == applied["etag"] != etag
    served.until(lambda: len(gateway.table.snapshot.routes) == 1)
    assert admin.status()["routes"] == document["routes"]
    assert not admin.apply_routes(EVEN, if_match=after)["changed"]


def test_second_writer_is_told_that_the_first_was_faster(admin: Admin) -> None:
    _, etag = admin.routes()
    admin.apply_routes(EVEN, if_match=etag)
    with pytest.raises(RemoteError, match="read again") as caught:
        admin.apply_routes({"routes": []}, if_match=etag)
    assert caught.value.status == 412
    assert len(admin.routes()[0]["routes"]) == 1


def test_dry_run_says_what_would_be_and_changes_nothing(admin: Admin) -> None:
    before = admin.routes()
    would = admin.apply_routes(EVEN, dry_run=True)
    assert (would["changed"], would["etag"] == before[1]) == (True, False)
    assert admin.routes() == before


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"routs": []}, "routs: unknown key"),
        ({"routes": [{"model": "iris", "split": {"weighted": {"iris@1.0.0": 1}}, "retries": 1}]}, "retries"),
        ({"routes": [{"model": "iris", "split": {"weighted": {"iris@1.0.0": -1}}}]}, "weighted"),
        ({"routes": [{"model": "iris", "split": {"weighted": {"iris": 1}}}]}, "iris@1.2.0"),
        ({"routes": [{"model": "iris"}]}, "split: is required"),
        ({"routes": EVEN["routes"] * 2}, "more than one route"),
    ],
)
def test_document_that_makes_no_sense_is_refused_by_name(admin: Admin, document: dict[str, object], words: str) -> None:
    before = admin.routes()
    with pytest.raises(RemoteError, match=words) as caught:
        admin.apply_routes(document)
    assert caught.value.status == 400
    assert admin.routes() == before


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense"])
def test_routes_are_not_removed_by_an_accident(admin: Admin, body: bytes) -> None:
    admin.apply_routes(EVEN)
    with pytest.raises(RemoteError) as caught:
        admin.ask("PUT", "/routes", content=body)
    assert caught.value.status == 400
    assert len(admin.routes()[0]["routes"]) == 1


def test_dry_run_is_true_or_false(admin: Admin) -> None:
    with pytest.raises(RemoteError, match="dry_run"):
        admin.ask("PUT", "/routes", json=EVEN, params={"dry_run": "yes"})


def test_settings_are_patched_and_shown(served: DataPlaneInProcess, gateway: Gateway, admin: Admin) -> None:
    applied = admin.apply_settings("flaky@1.0.0", {"latency_ms": 1})
    assert applied["changed"]
    assert not admin.apply_settings("flaky@1.0.0", {"latency_ms": 1})["changed"]
    served.until(lambda: gateway.table.snapshot.number == served.coordinator_number())
    [settings] = [v["settings"] for v in admin.status()["versions"] if v["version"] == "flaky@1.0.0"]
    assert settings["latency_ms"] == 1
    assert admin.apply_settings("flaky@1.0.0", {"latency_ms": 0})["changed"]


def test_settings_of_a_version_that_is_not_served_are_refused(admin: Admin) -> None:
    with pytest.raises(RemoteError, match=r"1\.0\.0") as caught:
        admin.apply_settings("iris@9.0.0", {"x": 1})
    assert caught.value.status == 404


def test_status_tells_gateways_versions_and_traffic(served: DataPlaneInProcess, gateway: Gateway, admin: Admin) -> None:
    with Inference(f"http://127.0.0.1:{gateway.spec.port}") as client:
        document = httpx.Response(200, content=iris()).json()
        answer, version = client.infer("iris", document, "1.0.0")
    assert (answer["model_name"], version) == ("iris", "iris@1.0.0")
    status = admin.status()
    assert status["coordinator"] == "present"
    assert gateway.id in [entry["gateway"] for entry in status["gateways"]]
    assert {"version": "iris@1.0.0", "replicas": 1, "settings": {}} in status["versions"]
    [traffic] = [
        entry
        for entry in status["traffic"]
        if (entry["gateway"], entry["ref"], entry["role"]) == (gateway.id, "iris@1.0.0", "direct")
    ]
    assert traffic["codes"]["200"] >= 1


def test_administration_answers_what_the_inference_port_does_and_loads_models(admin: Admin) -> None:
    assert admin.ask("GET", "/v2/health/ready").json() == {"ready": True}
    with pytest.raises(RemoteError, match="model_none"):
        admin.ask("POST", "/v2/repository/models/model_none/load")


# The clients


def test_client_quotes_names_so_that_they_stay_one_part_of_the_path(gateway: Gateway) -> None:
    with Inference(f"http://127.0.0.1:{gateway.spec.port}") as client:
        assert client.metadata("iris", "1.0.0")["name"] == "iris"
        with pytest.raises(RemoteError) as caught:
            client.metadata("iris?of=another")
        assert caught.value.status == 404


def test_server_that_is_not_there_is_told_in_a_sentence() -> None:
    with Inference(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(Unavailable, match="nstarx up"):
        client.metadata("iris")


@pytest.mark.parametrize("url", ["http://[::", "http://a:b"])
def test_url_that_is_none_is_told_in_a_sentence(url: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a URL"):
        Inference(url).metadata("iris")


def test_server_that_is_something_else_is_told_in_a_sentence(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    page = httpx.MockTransport(lambda request: httpx.Response(200, html="<h1>It works</h1>"))
    with Admin("http://test") as client:
        client._http = httpx.Client(base_url="http://test", transport=page)
        for ask in (client.status, client.routes, lambda: client.apply_routes({})):
            with pytest.raises(RemoteError, match="gateway of NStarX"):
                ask()


def test_error_of_the_server_comes_in_its_own_words(gateway: Gateway) -> None:
    with Inference(f"http://127.0.0.1:{gateway.spec.port}") as client:
        with pytest.raises(RemoteError, match="input 'x'") as caught:
            client.infer("iris", httpx.Response(200, content=flaky(1.0)).json())
        assert caught.value.status == 400


def test_settings_that_the_model_refuses_are_undone_and_the_refusal_is_the_answer(admin: Admin) -> None:
    def settings() -> dict[str, Any]:
        [found] = [v["settings"] for v in admin.status()["versions"] if v["version"] == "flaky@1.0.0"]
        return dict(found)

    before = settings()
    with pytest.raises(RemoteError, match="error_rate: 7 is not a number from 0 to 1") as refused:
        admin.apply_settings("flaky@1.0.0", {"error_rate": 7})
    assert refused.value.status == 400
    assert settings() == before or settings()["error_rate"] == 0.0


def test_traffic_alone_is_what_the_status_says(admin: Admin) -> None:
    assert [entry["ref"] for entry in admin.traffic()] == [entry["ref"] for entry in admin.status()["traffic"]]
