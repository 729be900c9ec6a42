"""`nstarx cache`: what people see of the gateways' caches, and what they drop."""

from collections.abc import Iterator

import httpx
import pytest
from typer.testing import CliRunner

from nstarx.cli.app import app
from nstarx.errors import InvalidRequest
from nstarx.spec.cache import CacheSpec
from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec
from tests.in_process import DataPlaneInProcess
from tests.router.wire import IRIS, Wire, iris, post


@pytest.fixture(scope="module")
def admin() -> Iterator[str]:
    """The administration port of a gateway that has been asked the same four times."""
    plane = DataPlaneInProcess()
    plane.replica("iris@1.0.0")
    route = RouteSpec(model="iris", split=SplitSpec(weighted={"iris@1.0.0": 1}), cache=CacheSpec())
    gateway = plane.gateway((route,))
    url = f"http://127.0.0.1:{gateway.spec.admin_port}"
    plane.until(lambda: _answers(url))
    with Wire(gateway) as wire:
        for _ in range(4):
            wire.send(post(IRIS, iris())).answer()
    yield url
    plane.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/status").status_code == 200
    except httpx.ConnectError:
        return False


def run(*words: str) -> list[str]:
    result = CliRunner().invoke(app, ["cache", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_cache_is_shown_by_route_and_purged_by_key(admin: str) -> None:
    head, row = run("show", "--admin-url", admin)
    assert row.split()[:7] == ["iris", "3", "0", "1", "0", "75.0%", "1"]
    assert head.split()[:3] == ["ROUTE", "HITS", "SHARED"]
    [line] = run("purge", "model:digits", "--admin-url", admin)
    assert line.startswith("dropped model:digits; snapshot")
    assert run("show", "--admin-url", admin)[1].split()[6] == "1"
    run("purge", "version:iris@1.0.0", "--admin-url", admin)
    assert run("show", "--admin-url", admin)[1].split()[6] == "0"
    assert run("purge", "--all", "--admin-url", admin)[0].startswith("dropped all cached answers")


def test_machines_get_every_gateway_by_itself(admin: str) -> None:
    assert any('"gateway": "gateway-0"' in line for line in run("show", "--admin-url", admin, "-o", "json"))


@pytest.mark.parametrize("words", [(), ("model:iris", "--all")])
def test_purge_of_nothing_or_of_two_things_is_refused_with_an_example(words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match=r"version:iris@1\.0\.0"):
        run("purge", *words)
