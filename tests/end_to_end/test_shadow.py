"""A shadow that hangs, through real Ray Serve replicas: clients notice nothing, and the report says what happened."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nstarx.client import Admin
from nstarx.spec.cluster import VERSION_IMPORT_PATH
from tests.end_to_end.conftest import Served, until
from tests.in_process import MODELS
from tests.load import load

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

PRIMARY, SHADOW = "flaky@1.0.0", "flaky@1.1.0"
PATH = "/v2/models/flaky/infer"
BODY = b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1.0,2.0]}]}'


@pytest.fixture
def rehearsal(served: Served, tmp_path: Path) -> Iterator[Served]:
    """A second version of flaky, the shadow of the first one on a route; both are gone afterwards."""
    from ray import serve

    from cluster.applications import run

    folder = tmp_path / "flaky" / "1.1.0"
    shutil.copytree(MODELS / "flaky" / "1.0.0", folder)
    description = folder / "model.yaml"
    description.write_text(description.read_text().replace("version: 1.0.0", "version: 1.1.0"))
    before = served.replicas()
    run([("flaky-1.1.0", VERSION_IMPORT_PATH, {"version": SHADOW, "replicas": 1, "repository": str(tmp_path)})])
    with served.admin as admin:
        routes, _ = admin.routes()
        shadow = {"version": SHADOW, "max_in_flight": 4, "timeout_s": 0.5, "ready": {"min_compared": 100}}
        route = {"model": "flaky", "split": {"weighted": {PRIMARY: 1}}, "shadows": [shadow]}
        admin.apply_routes({"routes": [*routes["routes"], route]})
        until(lambda: served.replicas() == {**before, SHADOW: 1})
        yield served
        admin.apply_routes(routes)
    serve.delete("flaky-1.1.0")
    until(lambda: served.replicas() == before)


def test_shadow_that_hangs_costs_no_client_an_answer_and_is_found_out(rehearsal: Served) -> None:
    with rehearsal.admin as admin:
        until(lambda: len({gateway["snapshot"] for gateway in admin.status()["gateways"]}) == 1)
        with load(rehearsal.port, PATH, BODY) as requests:
            until(lambda: seen(admin)["mismatch"]["of"] >= 200)
            assert seen(admin)["mismatch"]["count"] == 0
            admin.apply_settings(SHADOW, {"hang": True})
            until(lambda: seen(admin)["shadow_statuses"].get("504", 0) >= 8)
            answered = requests.total
            until(lambda: requests.total > answered + 500)
        assert not requests.failed
        assert set(requests.answered) == {PRIMARY}
        report = seen(admin)
        assert report["errors"]["count"] >= 8
        assert report["failures"][0]["shadow_status"] == 504
        assert report["drops"]["in_flight"] > 0
        text = admin.ask("GET", "/metrics").text
        assert f'outcome="shadow_failed",route="flaky",version="{SHADOW}"' in text
        assert f'role="shadow",route="flaky",version="{SHADOW}"' in text
        admin.apply_settings(SHADOW, {"hang": False})
        admin.reset_shadow("flaky", SHADOW)
        assert seen(admin)["sampled"] == 0
        with load(rehearsal.port, PATH, BODY) as requests:
            until(lambda: seen(admin)["mismatch"]["of"] >= 200)
        assert not requests.failed


def seen(admin: Admin) -> dict[str, Any]:
    return admin.shadow("flaky", SHADOW)
