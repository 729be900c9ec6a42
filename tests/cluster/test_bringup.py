"""What bringing a cluster up says when something is missing, without a Ray."""

from pathlib import Path

import pytest
import yaml

from cluster import bringup
from cluster.bringup import Cluster
from nstarx.errors import Unavailable
from nstarx.spec.cluster import ClusterSpec
from tests.cluster.samples import spec

CPUS = "1 replicas have taken more than 30s to be scheduled. Resources required: CPU 8"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def cluster(tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Two versions of a repository, the second one with packages of its own; there is no time to wait."""
    for ref, parts in {"plain@1.0.0": {}, "demo@1.0.0": {"python": {"requirements": ["nstarxdemo"]}}}.items():
        name, version = ref.split("@")
        folder = tmp_path / name / version
        folder.mkdir(parents=True)
        (folder / "model.yaml").write_text(yaml.safe_dump(spec(ref, **parts).model_dump(mode="json")))
    monkeypatch.setattr(bringup, "START_S", -1.0)
    monkeypatch.setattr(bringup, "INSTALL_S", 0.0)
    monkeypatch.setattr(bringup, "failure_of", lambda name: None)
    monkeypatch.setattr(bringup, "delay_of", {"demo-1.0.0": CPUS}.get)
    versions = [{"version": "plain@1.0.0"}, {"version": "demo@1.0.0"}]
    return Cluster(ClusterSpec.model_validate({"repository": str(tmp_path), "versions": versions}), None, told.append)


def test_versions_that_are_late_are_named_with_what_serve_says(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_replicas", lambda: {"plain@1.0.0": 1})
    monkeypatch.setattr(cluster, "_answers", lambda version: True)
    with pytest.raises(Unavailable) as late:
        cluster._wait(cluster.spec.versions)
    assert late.value.sentence.endswith(f"; demo@1.0.0: {CPUS}")
    assert "plain@1.0.0" not in late.value.sentence


def test_gateway_that_is_late_is_named_before_any_version(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_replicas", lambda: None)
    with pytest.raises(Unavailable) as late:
        cluster._wait(cluster.spec.versions)
    assert "no gateway answered at http://127.0.0.1:8081" in late.value.sentence
    assert "`ray status`" in late.value.sentence


def test_packages_to_install_are_told_and_given_time(
    cluster: Cluster, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    monkeypatch.setattr(cluster, "_until", lambda true, seconds: given.append(seconds) or True)  # type: ignore[func-returns-value]
    monkeypatch.setattr(bringup, "INSTALL_S", 500.0)
    cluster._wait(cluster.spec.versions[:1])
    cluster._wait(cluster.spec.versions)
    assert given == [-1.0, 499.0]
    assert told == ["installing python.requirements of demo@1.0.0 into a copy of this environment"]
