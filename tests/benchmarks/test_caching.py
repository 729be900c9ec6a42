from pathlib import Path

import pytest
import yaml

from benchmarks import caching, wrk
from nstarx.repository import Repository
from nstarx.spec.cluster import ClusterSpec
from nstarx.spec.record import parse
from tests.in_process import DataPlaneInProcess


def test_configuration_serves_both_models_behind_caches(tmp_path: Path) -> None:
    spec = parse(ClusterSpec, yaml.safe_load(caching.configuration(tmp_path).read_text()), "caching")
    assert {route.model: route.cache is not None for route in spec.routes} == {"iris": True, "slow": True}
    assert {str(ref) for ref in Repository(Path(spec.repository)).refs()} == {"iris@1.0.0", "slow@1.0.0"}


def test_ratio_is_the_median_of_those_of_each_repetition() -> None:
    gain = caching.Gain("iris", "iris", 3.0, misses=(100.0, 10.0, 50.0), hits=(300.0, 90.0, 200.0))
    assert gain.ratio == 4.0
    assert caching.gains_table([gain]).splitlines()[-1] == "| iris | 50 | 200 | 4x | ≥ 3x | yes |"


@pytest.mark.skipif(not wrk.installed(), reason="needs the load generator wrk")
@pytest.mark.parametrize(("questions", "hits"), [("same", True), ("new", False)])
@pytest.mark.parametrize("model", ["iris", "slow"])
def test_load_is_checked_and_asks_what_it_says(tmp_path: Path, model: str, questions: str, hits: bool) -> None:
    spec = parse(ClusterSpec, yaml.safe_load(caching.configuration(tmp_path).read_text()), "caching")
    plane = DataPlaneInProcess(Path(spec.repository))
    try:
        plane.replica(f"{model}@1.0.0")
        gateway = plane.gateway(spec.routes)
        url = f"http://127.0.0.1:{gateway.spec.port}/v2/models/{model}/infer"
        load = wrk.run(url, 2, 1, caching.QUESTIONS, (model, questions, "0", "checked"))
        assert (load.errors, load.wrong) == (0, 0)
        reading = gateway.compiler.caches[model].reading()
        assert (reading["hits"] > reading["misses"]) == hits
    finally:
        plane.close()
