"""The command line and stock Ray's own, as a person types them, each in processes of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from nstarx.client import Admin
from nstarx.errors import NStarXError
from tests.end_to_end.conftest import until
from tests.in_process import MODELS, free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

BIN = Path(sys.executable).parent
ROOT = MODELS.parent


def run(*command: str, cwd: Path, seconds: float = 120, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A command of this environment, to its end."""
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=cwd, env={**os.environ, **environment, "COLUMNS": "200"}, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip


def nstarx(*arguments: str, cwd: Path, admin: int) -> str:
    """What a command that succeeds prints."""
    done = run("nstarx", *arguments, cwd=cwd, NSTARX_ADMIN_URL=f"http://127.0.0.1:{admin}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def config(tmp_path: Path) -> tuple[Path, int, int]:
    """A configuration on free ports: its file, the inference port, the administration port."""
    port, admin = free_port(), free_port()
    document = {
        "repository": str(MODELS),
        "gateway": {"port": port, "admin_port": admin, "drain_s": 2},
        "versions": [{"version": "iris@1.0.0"}, {"version": "iris@1.1.0"}],
        "routes": [{"model": "iris", "split": {"weighted": {"iris@1.0.0": 100}}}],
    }
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(document))
    return file, port, admin


def test_cluster_is_brought_up_used_and_taken_down(config: tuple[Path, int, int], tmp_path: Path) -> None:
    file, port, admin = config
    nstarx("up", str(file), "--detach", cwd=tmp_path, admin=admin)
    try:
        status = json.loads(nstarx("status", "--output", "json", cwd=tmp_path, admin=admin))
        assert {v["version"]: v["replicas"] for v in status["versions"]} == {"iris@1.0.0": 1, "iris@1.1.0": 1}

        url = f"http://127.0.0.1:{port}"
        answer = nstarx("infer", "iris", "--input", "x=[[5.1,3.5,1.4,0.2]]", "--url", url, cwd=tmp_path, admin=admin)
        assert "answered by iris@1.0.0" in answer

        routes = yaml.safe_load(nstarx("routes", "show", cwd=tmp_path, admin=admin))
        routes["routes"][0]["split"]["weighted"] = {"iris@1.1.0": 1}
        (tmp_path / "routes.yaml").write_text(yaml.safe_dump(routes))
        assert "would change" in nstarx("routes", "apply", "routes.yaml", "--dry-run", cwd=tmp_path, admin=admin)
        assert "routes changed" in nstarx("routes", "apply", "routes.yaml", cwd=tmp_path, admin=admin)
        assert "routes unchanged" in nstarx("routes", "apply", "routes.yaml", cwd=tmp_path, admin=admin)
        until(
            lambda: (
                "iris@1.1.0"
                in nstarx("infer", "iris", "-i", "x=[[5.1,3.5,1.4,0.2]]", "--url", url, cwd=tmp_path, admin=admin)
            )
        )

        again = run("nstarx", "up", str(file), cwd=tmp_path)
        assert again.returncode == 1
        assert f"port {port} of 127.0.0.1 is in use" in again.stderr
    finally:
        down = nstarx("down", "--admin-port", str(admin), cwd=tmp_path, admin=admin)
    assert "down" in down
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_wrong_configuration_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("gateway: {prot: 8080}\nversions: [{version: iris}]\n")
    done = run("nstarx", "up", "wrong.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "gateway.prot: unknown key" in done.stderr
    assert "versions.0.version" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_that_cannot_load_is_reported_with_its_reason(config: tuple[Path, int, int], tmp_path: Path) -> None:
    file, *_ = config
    folder = tmp_path / "models" / "broken" / "1.0.0"
    folder.mkdir(parents=True)
    source = yaml.safe_load((MODELS / "iris" / "1.0.0" / "model.yaml").read_text())
    (folder / "model.yaml").write_text(yaml.safe_dump({**source, "name": "broken"}))
    (folder / "model.onnx").write_bytes(b"not the model")
    document = {**yaml.safe_load(file.read_text()), "repository": "models", "versions": [{"version": "broken@1.0.0"}]}
    file.write_text(yaml.safe_dump({**document, "routes": []}))
    done = run("nstarx", "up", str(file), cwd=tmp_path)
    assert done.returncode == 1
    assert "broken@1.0.0" in done.stderr
    assert "sha256" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def ray_head(tmp_path: Path) -> Iterator[str]:
    """A Ray cluster of its own, started with Ray's command; the address of its dashboard."""
    ports = [free_port() for _ in range(4)]
    command = ["start", "--head", "--block", "--num-cpus=8", "--disable-usage-stats", f"--port={ports[0]}"]
    command += [f"--dashboard-port={ports[1]}", f"--ray-client-server-port={ports[2]}"]
    command += [f"--dashboard-agent-listen-port={ports[3]}", "--min-worker-port=0", "--max-worker-port=0"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(
        [str(BIN / "ray"), *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as head:
        try:
            until(lambda: answers(f"http://127.0.0.1:{ports[1]}/api/version"))
            yield f"http://127.0.0.1:{ports[1]}"
        finally:
            head.send_signal(signal.SIGINT)
            head.wait(60)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def test_stock_ray_deploys_the_same_from_a_serve_config_file(
    ray_head: str, config: tuple[Path, int, int], tmp_path: Path
) -> None:
    file, port, admin = config
    serve_config = nstarx("up", str(file), "--serve-config", cwd=tmp_path, admin=admin)
    (tmp_path / "serve.yaml").write_text(serve_config)
    done = run("serve", "deploy", "serve.yaml", "--address", ray_head, cwd=tmp_path, RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: replicas(admin) == {"iris@1.0.0": 1, "iris@1.1.0": 1}, 90)
    until(lambda: answers(f"http://127.0.0.1:{port}/v2/models/iris/ready"))
    body: dict[str, Any] = {
        "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]
    }
    answer = httpx.post(f"http://127.0.0.1:{port}/v2/models/iris/infer", json=body)
    assert answer.headers["x-nstarx-version"] == "iris@1.0.0"


def replicas(port: int) -> dict[str, int]:
    try:
        with Admin(f"http://127.0.0.1:{port}") as admin:
            return {version["version"]: version["replicas"] for version in admin.status()["versions"]}
    except NStarXError:
        return {}
