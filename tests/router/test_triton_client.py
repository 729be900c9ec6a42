"""Triton's own client, unchanged."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from cluster.applications import InMemoryApplications
from nstarx.spec.version import VersionRef
from nstarx.tensors import DTYPES
from serving.replica import Replica
from tests.in_process import NODE, DataPlaneInProcess

Client = Any
"""tritonclient.http.InferenceServerClient, which has no types."""
Tensor = np.ndarray[Any, Any]

IRIS = np.array([[5.1, 3.5, 1.4, 0.2], [6.6, 3.0, 4.4, 1.4], [5.9, 3.0, 5.1, 1.8]], np.float32)
ONE_OF_EACH: dict[str, Tensor] = {
    "bool": np.array([True, False]),
    **{
        name: np.array([np.iinfo(name).min, np.iinfo(name).max], name)
        for name in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
    },
    "fp16": np.array([-65504.0, 0.5], np.float16),
    "fp32": np.array([1e-30, 0.5], np.float32),
    "fp64": np.array([1e-300, 0.5], np.float64),
    "bf16": np.array([1e38, 0.5], DTYPES["BF16"]),
    "bytes": np.array([b"", "naïve ☃".encode()], object),
}


class RunningApplications(InMemoryApplications):
    """Versions that are deployed run, in this process."""

    def __init__(self, plane: DataPlaneInProcess) -> None:
        super().__init__()
        self._plane = plane
        self._running: dict[VersionRef, Replica] = {}

    async def deploy(self, ref: VersionRef) -> None:
        await super().deploy(ref)
        replica = self._running[ref] = Replica(self._plane.repository, ref, NODE, None, self._plane.coordinator)
        await replica.start()
        self._plane.replicas.append(replica)

    async def delete(self, ref: VersionRef) -> None:
        await super().delete(ref)
        await self._running.pop(ref).stop()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    plane = DataPlaneInProcess()
    plane.applications = RunningApplications(plane)
    for ref in ("iris@1.0.0", "iris@1.1.0", "echo@1.0.0", "digits@1.0.0"):
        plane.replica(ref)
    gateway = plane.gateway(model_control="explicit")
    yield f"127.0.0.1:{gateway.spec.port}"
    plane.close()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with tritonclient.http.InferenceServerClient(url, concurrency=8) as client:
        yield client


def iris_input(rows: Tensor = IRIS, binary: bool = True) -> list[Any]:
    tensor = tritonclient.http.InferInput("x", rows.shape, "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return [tensor]


def wanted(*names: str, binary: bool = True) -> list[Any]:
    return [tritonclient.http.InferRequestedOutput(name, binary_data=binary) for name in names]


def test_server_is_asked_for_its_health_and_metadata(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "nstarx"


def test_model_is_asked_for_its_health_metadata_and_configuration(client: Client) -> None:
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "1.0.0")
    assert not client.is_model_ready("iris", "9.0.0")
    assert not client.is_model_ready("none")
    metadata = client.get_model_metadata("iris", "1.0.0")
    assert (metadata["name"], metadata["versions"]) == ("iris", ["1.0.0"])
    assert client.get_model_config("iris")["max_batch_size"] == 128


def test_models_are_listed_loaded_and_unloaded(client: Client) -> None:
    def state() -> dict[str, str]:
        return {f"{e['name']}@{e['version']}": e["state"] for e in client.get_model_repository_index()}

    assert state()["flaky@1.1.0"] == "UNAVAILABLE"
    client.load_model("flaky")
    assert state()["flaky@1.1.0"] == "READY"
    x = tritonclient.http.InferInput("x", [2], "FP32")
    x.set_data_from_numpy(np.array([1.5, -2], np.float32))
    assert client.infer("flaky", [x]).as_numpy("y").tolist() == [3.0, -4.0]
    client.unload_model("flaky")
    assert state()["flaky@1.1.0"] == "UNAVAILABLE"
    assert not client.is_model_ready("flaky")


def test_model_that_can_not_be_loaded_says_why(client: Client) -> None:
    with pytest.raises(InferenceServerException, match="model 'none' is not served here"):
        client.load_model("none")
    with pytest.raises(InferenceServerException, match="config is not understood"):
        client.load_model("iris", config="{}")
    with pytest.raises(InferenceServerException, match="model 'none' is not served here"):
        client.unload_model("none")


def test_statistics_count_inferences(client: Client) -> None:
    def count() -> int:
        [entry] = client.get_inference_statistics("digits")["model_stats"]
        return int(entry["inference_count"])

    before = count()
    tensor = tritonclient.http.InferInput("x", [5, 64], "FP32")
    tensor.set_data_from_numpy(np.zeros((5, 64), np.float32))
    client.infer("digits", [tensor])
    assert count() == before + 5
    assert len(client.get_inference_statistics()["model_stats"]) >= 4


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_model_answers_json_and_binary(client: Client, binary_in: bool, binary_out: bool) -> None:
    answer = client.infer(
        "iris", iris_input(binary=binary_in), outputs=wanted("label", "probabilities", binary=binary_out)
    )
    assert answer.as_numpy("label").tolist() == [0, 1, 2]
    assert answer.as_numpy("probabilities").shape == (3, 3)
    assert np.allclose(answer.as_numpy("probabilities").sum(axis=1), 1)


def test_version_is_chosen_and_named(client: Client) -> None:
    for version in ("1.0.0", "1.1.0"):
        answer = client.infer("iris", iris_input(), model_version=version).get_response()
        assert (answer["model_name"], answer["model_version"]) == ("iris", version)


def test_only_requested_outputs_are_answered(client: Client) -> None:
    answer = client.infer("iris", iris_input(), outputs=wanted("label"))
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["label"]
    assert answer.as_numpy("probabilities") is None


def test_id_is_echoed(client: Client) -> None:
    assert client.infer("iris", iris_input(), request_id="a-7").get_response()["id"] == "a-7"
    assert "id" not in client.infer("iris", iris_input()).get_response()


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_comes_back_as_it_went(client: Client, binary: bool) -> None:
    inputs = []
    for name, array in ONE_OF_EACH.items():
        datatype = "BF16" if name == "bf16" else np_to_triton_dtype(array.dtype)
        tensor = tritonclient.http.InferInput(name, array.shape, datatype)
        # Its client has no JSON form for the two small floats.
        tensor.set_data_from_numpy(array, binary_data=binary or name in ("fp16", "bf16"))
        inputs.append(tensor)
    outputs = [
        tritonclient.http.InferRequestedOutput(name, binary_data=binary or name in ("fp16", "bf16"))
        for name in ONE_OF_EACH
    ]
    answer = client.infer("echo", inputs, outputs=outputs)
    for name, array in ONE_OF_EACH.items():
        back = answer.as_numpy(name)
        if name == "bf16":
            assert np.asarray(back, np.float32).tolist() == array.astype(np.float32).tolist()
        elif name == "bytes":
            assert [b if isinstance(b, bytes) else b.encode() for b in back] == list(array)
        else:
            assert back.dtype == array.dtype
            assert back.tolist() == array.tolist()


@pytest.mark.parametrize("request_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_algorithm", [None, "gzip", "deflate"])
def test_bodies_are_compressed_both_ways(
    client: Client, request_algorithm: str | None, response_algorithm: str | None
) -> None:
    rows = np.tile(IRIS, (500, 1))
    answer = client.infer(
        "iris",
        iris_input(rows),
        request_compression_algorithm=request_algorithm,
        response_compression_algorithm=response_algorithm,
    )
    assert answer.as_numpy("label").tolist() == [0, 1, 2] * 500


def test_many_requests_at_once_get_their_own_answers(client: Client) -> None:
    pending = [client.async_infer("iris", iris_input(IRIS[n % 3 :]), request_id=str(n)) for n in range(60)]
    for n, request in enumerate(pending):
        answer = request.get_result(timeout=10)
        assert answer.get_response()["id"] == str(n)
        assert answer.as_numpy("label").tolist() == [0, 1, 2][n % 3 :]


@pytest.mark.parametrize(
    ("ask", "status", "words"),
    [
        (lambda client: client.infer("none", iris_input()), "404", "model 'none' is not served here"),
        (lambda client: client.infer("iris", iris_input(), model_version="9.0.0"), "404", "no version '9.0.0'"),
        (lambda client: client.infer("iris", iris_input(IRIS[:, :3])), "400", "input 'x'"),
        (lambda client: client.infer("iris", iris_input(), outputs=wanted("nothing")), "400", "nothing"),
        (lambda client: client.get_model_metadata("none"), "404", "model 'none' is not served here"),
        (lambda client: client.infer("iris", iris_input(), timeout=-1), "400", "timeout"),
    ],
)
def test_errors_come_in_our_words(client: Client, ask: Callable[[Client], Any], status: str, words: str) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        ask(client)
    assert caught.value.status() == status


def test_asynchronous_client_works_as_well(url: str) -> None:
    def run(work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        async def with_client() -> None:
            async with tritonclient.http.aio.InferenceServerClient(url) as client:
                await work(client)

        asyncio.run(with_client())

    async def work(client: Any) -> None:
        assert await client.is_server_live()
        assert await client.is_model_ready("iris", "1.0.0")
        assert (await client.get_model_metadata("iris"))["name"] == "iris"
        answers = await asyncio.gather(*(client.infer("iris", iris_input(), request_id=str(n)) for n in range(20)))
        assert [answer.get_response()["id"] for answer in answers] == [str(n) for n in range(20)]
        assert all(answer.as_numpy("label").tolist() == [0, 1, 2] for answer in answers)
        with pytest.raises(InferenceServerException, match="model 'none'"):
            await client.infer("none", iris_input())

    run(work)
