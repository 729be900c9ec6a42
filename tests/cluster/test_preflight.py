"""Configurations that can't come up are refused before anything starts, in words that name the field."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.preflight import check, check_ray, unserved
from nstarx.errors import InvalidConfiguration, Unavailable
from nstarx.spec.cluster import ClusterSpec
from tests.in_process import MODELS, free_port


def spec(**parts: Any) -> ClusterSpec:
    """A cluster on free ports of this machine, for the sample models."""
    gateway = {"port": free_port(), "admin_port": free_port(), **parts.pop("gateway", {})}
    return ClusterSpec.model_validate({"repository": str(MODELS), "gateway": gateway, **parts})


def refusal(here: bool = True, **parts: Any) -> str:
    with pytest.raises(InvalidConfiguration) as refused:
        check(spec(**parts), here)
    return refused.value.sentence


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on, and shares as gateways share theirs."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_configuration_of_sample_models_on_free_ports_passes() -> None:
    check(spec(versions=[{"version": "iris@1.0.0"}, {"version": "echo@1.0.0"}]), here=True)


@pytest.mark.parametrize("which", ["port", "admin_port"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("here", [True, False])
def test_port_in_use_is_named(taken: int, which: str, host: str, here: bool) -> None:
    said = refusal(here, gateway={which: taken, "host": host, "admin_host": host})
    assert said == f"port {taken} of {host} is in use; end what uses it, or set gateway.port and gateway.admin_port"


def test_one_port_for_inference_and_administration_is_refused() -> None:
    port = free_port()
    assert refusal(gateway={"port": port, "admin_port": port}).startswith(
        f"gateway.port and gateway.admin_port are both {port}"
    )
    check(spec(gateway={"port": port, "admin_port": port, "admin_host": "127.0.0.2"}), here=True)


@pytest.mark.parametrize("host", ["198.51.100.7", "x" * 70, ".."])
def test_host_that_this_machine_has_not_is_named(host: str) -> None:
    said = refusal(gateway={"admin_host": host})
    assert said.startswith(f"gateway.admin_host: can't listen on '{host}'") or "is not a host" in said
    assert said.endswith("set an address of this machine, or 0.0.0.0 for all of them")


def test_empty_host_is_refused() -> None:
    assert refusal(gateway={"host": ""}).startswith("gateway.host: is empty")


def test_gateways_that_may_start_elsewhere_may_have_addresses_of_elsewhere() -> None:
    check(spec(gateway={"host": "198.51.100.7"}), here=False)


@pytest.mark.parametrize("version", ["irs@1.0.0", "iris@9.0.0"])
def test_version_that_the_repository_has_not_is_named_with_what_it_has(version: str) -> None:
    said = refusal(versions=[{"version": "iris@1.0.0"}, {"version": version}])
    assert said.startswith(f"versions: {version} is not in the model repository {MODELS}, which has: ")
    assert "iris@1.0.0, iris@1.1.0" in said


def test_repository_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert nowhere in refusal(repository=nowhere, versions=[{"version": "iris@1.0.0"}])
    check(spec(repository=nowhere), here=True)


def test_wrong_model_yaml_is_found_before_anything_starts(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "iris", tmp_path / "iris")
    file = tmp_path / "iris" / "1.0.0" / "model.yaml"
    file.write_text(file.read_text() + "\nruntme: onnx\n")
    said = refusal(repository=str(tmp_path), versions=[{"version": "iris@1.0.0"}])
    assert said == f"{file}: runtme: unknown key; check its spelling"


def test_routes_to_versions_that_are_not_served_are_told() -> None:
    routes = [{"model": "iris", "split": {"weighted": {"iris@1.0.0": 9, "iris@7.0.0": 1}}}]
    served = spec(versions=[{"version": "iris@1.0.0"}], routes=routes)
    [said] = unserved(served)
    assert said == "route 'iris' names iris@7.0.0, which is not among `versions`; it answers once it is loaded"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_ray_that_is_not_there_is_told_at_once(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match="no Ray cluster at") as missing:
        check_ray(address)
    assert address in missing.value.sentence
    assert "`ray start --head`" in missing.value.sentence


def test_addresses_that_only_ray_understands_and_those_that_answer_pass(taken: int) -> None:
    for address in ("auto", "local", "foo", f"127.0.0.1:{taken}"):
        check_ray(address)
    with pytest.raises(Unavailable):
        check_ray("127.0.0.1:99999")
