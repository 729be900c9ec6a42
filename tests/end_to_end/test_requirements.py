"""Packages that one version brings along: its `python.requirements`, installed from a file and without a network."""

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from nstarx.spec.cluster import GATEWAY_IMPORT_PATH
from tests.end_to_end.conftest import Served, gateway_args, until
from tests.end_to_end.test_command_line import run
from tests.in_process import free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

SECRET = 4217
CODE = """\
import nstarxdemo


class Model:
    def infer(self, inputs):
        return {"y": inputs["x"] * nstarxdemo.SECRET}
"""
TENSOR = {"datatype": "INT64", "shape": [-1]}
GATEWAY = "requirements-gateway"


def wheel(folder: Path) -> Path:
    """A package of one module, zipped by hand as pip takes it (PEP 427): nothing is built and nothing is asked for."""
    info = "nstarxdemo-1.0.0.dist-info"
    files = {
        "nstarxdemo.py": f"SECRET = {SECRET}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: nstarxdemo\nVersion: 1.0.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    path = folder / "nstarxdemo-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def model(repository: Path, *requirements: str) -> None:
    """demo@1.0.0 in a repository: multiplies by what only the package knows."""
    folder = repository / "demo" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(CODE)
    document = {"name": "demo", "version": "1.0.0", "runtime": "python", "file": "model.py"}
    document["sha256"] = hashlib.sha256(CODE.encode()).hexdigest()
    parts = {"python": {"requirements": list(requirements)}, "resources": {"cpu": 0.1}}
    tensors = {"inputs": [{"name": "x", **TENSOR}], "outputs": [{"name": "y", **TENSOR}]}
    (folder / "model.yaml").write_text(yaml.safe_dump({**document, **tensors, **parts}))


@pytest.fixture
def gateway(served: Served, tmp_path: Path) -> Iterator[str]:
    """One more gateway of the shared cluster, for a repository of this test; the URL of its inference port."""
    import ray
    from ray import serve

    from cluster.applications import run as deploy

    place = Served(free_port(), free_port())
    args = {**gateway_args(*place, processes=1), "repository": str(tmp_path / "models")}
    deploy([(GATEWAY, GATEWAY_IMPORT_PATH, args)])
    until(lambda: bool(place.replicas()))
    yield f"http://{place.url}"
    serve.delete("demo-1.0.0")
    serve.delete(GATEWAY)
    until(lambda: "demo@1.0.0" not in served.replicas())
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
    shutil.rmtree(session / "runtime_resources" / "pip")  # Ray would keep this copy of the whole environment.


def infer(url: str) -> dict[str, Any]:
    request = {"inputs": [{"name": "x", **TENSOR, "shape": [2], "data": [1, 2]}]}
    return dict(httpx.post(f"{url}/v2/models/demo/infer", json=request).raise_for_status().json())


def test_model_answers_with_a_package_that_only_its_version_brings(gateway: str, tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError):
        __import__("nstarxdemo")
    model(tmp_path / "models", f"nstarxdemo @ {wheel(tmp_path).as_uri()}")

    loaded = httpx.post(f"{gateway}/v2/repository/models/demo/load", json={}, timeout=150)
    assert loaded.is_success, loaded.text
    assert infer(gateway)["outputs"][0]["data"] == [SECRET, 2 * SECRET]


def test_requirement_that_cannot_be_installed_ends_the_start_with_pips_words(tmp_path: Path) -> None:
    package = tmp_path / "nstarxdemo-1.0.0-py3-none-any.whl"
    model(tmp_path / "models", f"nstarxdemo @ {package.as_uri()}")
    ports = {"port": free_port(), "admin_port": free_port()}
    config = {"repository": "models", "gateway": ports, "versions": [{"version": "demo@1.0.0"}]}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(config))

    done = run("nstarx", "up", "cluster.yaml", cwd=tmp_path, seconds=200)
    assert done.returncode == 1
    assert "installing python.requirements of demo@1.0.0" in done.stdout
    assert "demo@1.0.0 can't be loaded: pip can't install its python.requirements" in done.stderr
    assert f"No such file or directory: '{package}'" in done.stderr
    assert "mend python.requirements in its model.yaml" in done.stderr
    assert "Traceback" not in done.stderr
