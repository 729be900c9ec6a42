"""The replica's end of lanes: whatever one peer does, every other gets its right answers."""

import asyncio
import secrets
import threading
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.frames import (
    FLAG_ACCEPT_GZIP,
    FLAG_DEFLATE,
    FLAG_GZIP,
    FLAG_INVALID,
    FLAG_STREAM,
    HANDSHAKE_LIMIT,
    HEADER,
    MAGIC,
    NO_JSON_LENGTH,
    NONCE_BYTES,
    PREFACE,
    Kind,
    hello,
    pack,
)
from serving import bodies
from serving.call import Call
from serving.codec import Codec, InferRequest
from tests.serving.doubles import POISON, Obedient, double, request, rows_of, spec, turns, until
from tests.serving.raw_lane import KEY, REF, RawLane, Served, answer_of, request_frame, serving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(params=["unix", "tcp"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    place = tmp_path / "s" if request.param == "unix" else "127.0.0.1"
    async with serving(place) as served:
        yield served


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "s"


def hello_frame(challenge: bytes, key: bytes = KEY, ref: str = REF) -> bytes:
    return pack(Kind.HELLO, payload=hello(key, secrets.token_bytes(NONCE_BYTES), challenge, ref))


# Answers


async def test_requests_written_together_are_run_and_answered_together(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    lane.send(b"".join(request_frame(id, request([float(id)])) for id in (1, 2, 3)))
    assert [answer_of(await lane.frame(), id) for id in (1, 2, 3)] == [[[2]], [[4]], [[6]]]
    assert served.runtime.runs == [[[1], [2], [3]]]
    lane.hang_up()


async def test_request_is_answered_however_it_is_cut(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    frame = request_frame(1, request([1.0]))
    for at in range(len(frame)):
        lane.send(frame[at : at + 1])
        await turns(2)
    assert answer_of(await lane.frame(), 1) == [[2]]
    lane.hang_up()


async def test_body_larger_than_the_handshake_allows_is_fine_after_it(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    row = [float(n) for n in range(20_000)]
    assert await lane.ask(1, row) == [[2 * value for value in row]]
    lane.hang_up()


async def test_errors_carry_their_status(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    lane.send(request_frame(1, b"[]") + request_frame(2, request([POISON])))
    answers = {frame[4]: frame for frame in [await lane.frame(), await lane.frame()]}
    assert (answers[1][3], answers[2][3]) == (400, 500)
    assert "poison" in orjson.loads(answers[2][-1])["error"]
    lane.hang_up()


async def test_binary_tensors_travel_with_the_length_of_their_json(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    lane.send(request_frame(1, request([1.0], parameters={"binary_data_output": True})))
    frame = await lane.frame()
    assert frame[-1][frame[6] :] == b"\x00\x00\x00\x40"
    assert orjson.loads(frame[-1][: frame[6]])["outputs"][0]["parameters"] == {"binary_data_size": 4}
    lane.hang_up()


async def test_large_answer_is_compressed_for_a_client_that_accepts_it(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    row = [float(n) for n in range(5000)]
    lane.send(request_frame(1, zlib.compress(request(row)), FLAG_DEFLATE | FLAG_ACCEPT_GZIP))
    lane.send(request_frame(2, request([1.0]), FLAG_ACCEPT_GZIP))
    frames = {frame[4]: frame for frame in [await lane.frame(), await lane.frame()]}
    assert (frames[1][2], frames[2][2]) == (FLAG_GZIP, 0)
    assert rows_of(orjson.loads(zlib.decompress(frames[1][-1], 31))) == [[2 * value for value in row]]
    lane.hang_up()


async def test_answer_that_is_not_finite_is_marked_and_only_that_one(served: Served) -> None:
    nan = np.float32(np.nan)
    served.runtime.work = lambda inputs: {"y": np.where(inputs["x"] == 2, nan, inputs["x"]) * np.float32(2)}
    lane = await RawLane.greeted(served.address)
    for turn in range(3):
        ids = [3 * turn + place for place in range(3)]
        lane.send(b"".join(request_frame(id, request([float(place)])) for place, id in enumerate(ids, 1)))
        frames = {frame[4]: frame for frame in [await lane.frame() for _ in ids]}
        assert [frames[id][2:4] for id in ids] == [(0, 200), (FLAG_INVALID, 200), (0, 200)]
        assert orjson.loads(frames[ids[1]][-1])["outputs"][0]["data"] == [None]
    lane.send(request_frame(9, request([2.0])))
    assert (await lane.frame())[2:4] == (FLAG_INVALID, 200)
    lane.send(request_frame(10, request([2.0] * 5000), FLAG_ACCEPT_GZIP))
    assert (await lane.frame())[2:4] == (FLAG_INVALID | FLAG_GZIP, 200)
    lane.send(request_frame(11, request([2.0], parameters={"binary_data_output": True})))
    assert (await lane.frame())[2:4] == (FLAG_INVALID, 200)
    lane.hang_up()


async def test_ping_and_other_lanes_are_answered_while_a_large_body_is_decoded(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    door, real = threading.Event(), bodies.decoded

    def slowly(codec: Codec, call: Call, limit: int) -> InferRequest:
        assert door.wait(5)
        return real(codec, call, limit)

    monkeypatch.setattr(bodies, "decoded", slowly)
    lane, neighbour = await RawLane.greeted(served.address), await RawLane.greeted(served.address)
    lane.send(request_frame(1, request([1.0]) + b" " * bodies.LARGE) + pack(Kind.PING, 2))
    assert (await lane.frame())[1:5:3] == (Kind.PONG, 2)
    assert await neighbour.ask(1, [5.0]) == [[10]]
    door.set()
    assert answer_of(await lane.frame(), 1) == [[2]]
    lane.hang_up()
    neighbour.hang_up()


async def test_large_answers_to_calls_of_one_lane_are_compressed_each_as_it_is_accepted(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    row = [float(n) for n in range(5000)]
    for _ in range(2):
        lane.send(request_frame(1, request(row), FLAG_ACCEPT_GZIP) + request_frame(2, request(row)))
        frames = {frame[4]: frame for frame in [await lane.frame(), await lane.frame()]}
        assert (frames[1][2], frames[2][2]) == (FLAG_GZIP, 0)
        assert zlib.decompress(frames[1][-1], 31) == frames[2][-1]
    lane.hang_up()


async def test_deadline_travels_with_the_request(socket: Path) -> None:
    async with serving(socket, Obedient("async"), spec(max_batch_size=1)) as served:
        served.runtime.gate.clear()
        lane = await RawLane.greeted(served.address)
        lane.send(request_frame(1, request([1.0])) + request_frame(2, request([2.0]), wait_ms=1))
        await until(lambda: bool(served.runtime.runs))
        served.lanes.batcher._clock = lambda: time.perf_counter_ns() + 1_000_000_000
        served.runtime.gate.set()
        assert {(await lane.frame())[1:5:3] for _ in range(2)} == {(Kind.RESPONSE, 1), (Kind.EXPIRED, 2)}
        lane.hang_up()


async def test_full_queue_is_told_at_once(socket: Path) -> None:
    async with serving(socket, Obedient("async"), spec(max_batch_size=1, max_queue_size=1)) as served:
        served.runtime.gate.clear()
        lane = await RawLane.greeted(served.address)
        lane.send(request_frame(1, request([1.0])) + request_frame(2, request([2.0])))
        assert (await lane.frame())[1:5:3] == (Kind.OVERLOADED, 2)
        served.runtime.gate.set()
        assert answer_of(await lane.frame(), 1) == [[2]]
        lane.hang_up()


async def test_stream_comes_in_chunks_and_an_end(socket: Path) -> None:
    async with serving(socket, Obedient("stream")) as served:
        served.runtime.parts = 2
        lane = await RawLane.greeted(served.address)
        lane.send(request_frame(1, request([1.0]), FLAG_STREAM))
        assert [(await lane.frame())[1] for _ in range(3)] == [Kind.CHUNK, Kind.CHUNK, Kind.END]
        lane.hang_up()


# Cancelling


async def test_cancelled_request_is_not_answered(socket: Path) -> None:
    async with serving(socket, Obedient("async"), spec(max_batch_size=1)) as served:
        served.runtime.gate.clear()
        lane = await RawLane.greeted(served.address)
        lane.send(b"".join(request_frame(id, request([float(id)])) for id in (1, 2, 3)))
        await until(lambda: bool(served.runtime.runs))
        lane.send(pack(Kind.CANCEL, 1) + pack(Kind.CANCEL, 2) + pack(Kind.PING, 9))
        assert (await lane.frame())[1:5:3] == (Kind.PONG, 9)
        served.runtime.gate.set()
        assert answer_of(await lane.frame(), 3) == [[6]]
        assert served.runtime.runs == [[[1]], [[3]]]
        assert served.lanes.batcher.counters.cancelled == 2
        lane.hang_up()


async def test_cancel_of_what_was_never_sent_or_is_long_answered_does_nothing(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    assert await lane.ask(1, [1.0]) == [[2]]
    lane.send(pack(Kind.CANCEL, 1) + pack(Kind.CANCEL, 77))
    assert await lane.ask(1, [5.0]) == [[10]]
    lane.hang_up()


async def test_stream_of_a_gateway_that_died_is_cancelled(socket: Path) -> None:
    async with serving(socket, Obedient("stream")) as served:
        served.runtime.parts = 1_000_000_000
        lane = await RawLane.greeted(served.address)
        lane.send(request_frame(1, request([1.0]), FLAG_STREAM))
        await lane.frame()
        lane.abort()
        await until(lambda: not served.lanes.lanes and served.lanes.batcher.backlog == 0)
        assert served.lanes.batcher.counters.cancelled == 1


async def test_stream_waits_for_a_gateway_that_reads_slowly(socket: Path) -> None:
    """However much the model has to say, only what the sockets hold is under way."""
    async with serving(socket, Obedient("stream", work=lambda inputs: double(inputs))) as served:
        served.runtime.parts = 10_000
        lane = await RawLane.greeted(served.address)
        lane.send(request_frame(1, request([0.5] * 5000), FLAG_STREAM))
        await until(lambda: any(not each._writable.is_set() for each in served.lanes.lanes))
        stalled = len(served.runtime.runs)
        await turns(50)
        assert len(served.runtime.runs) == stalled
        for _ in range(stalled + 1):
            assert (await lane.frame())[1] == Kind.CHUNK
        lane.abort()


# Handshake


async def test_gateway_with_another_key_is_refused(served: Served) -> None:
    lane = await RawLane.dial(served.address)
    lane.send(PREFACE + hello_frame(await lane.challenge(), key=b"x" * 32))
    assert "does not know this replica's key" in await lane.refusal()


async def test_gateway_that_wants_another_version_is_told_which_one_is_here(served: Served) -> None:
    lane = await RawLane.dial(served.address)
    lane.send(PREFACE + hello_frame(await lane.challenge(), ref="sample@2.0.0"))
    assert await lane.refusal() == f"this replica serves {REF}"


async def test_gateway_of_another_protocol_version_is_told_both(served: Served) -> None:
    lane = await RawLane.dial(served.address)
    lane.send(MAGIC + b"\x63" + hello_frame(await lane.challenge()))
    assert await lane.refusal() == "the peer speaks lane protocol 99, this side 1"


async def test_hello_of_another_connection_is_refused(served: Served) -> None:
    first, second = await RawLane.dial(served.address), await RawLane.dial(served.address)
    overheard = hello_frame(await first.challenge())
    await second.challenge()
    second.send(PREFACE + overheard)
    assert "does not know" in await second.refusal()
    first.send(PREFACE + overheard)
    assert (await first.frame())[1] == Kind.READY
    first.hang_up()


async def test_every_connection_gets_a_challenge_of_its_own(served: Served) -> None:
    lanes = [await RawLane.dial(served.address) for _ in range(4)]
    assert len({await lane.challenge() for lane in lanes}) == 4
    for lane in lanes:
        lane.hang_up()


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.CANCEL, Kind.STATS, Kind.PING, Kind.READY, Kind.GOAWAY, 200])
async def test_nothing_is_done_for_a_peer_that_has_not_said_hello(served: Served, kind: int) -> None:
    lane = await RawLane.dial(served.address)
    payload = request([1.0])
    lane.send(PREFACE + HEADER.pack(len(payload), kind, 0, 0, 1, 0, NO_JSON_LENGTH) + payload)
    assert await lane.refusal() == "the first frame must be HELLO"
    assert served.runtime.runs == []


async def test_peer_that_has_not_said_hello_cannot_fill_memory(served: Served) -> None:
    lane = await RawLane.dial(served.address)
    lane.send(PREFACE + HEADER.pack(HANDSHAKE_LIMIT + 1, Kind.HELLO, 0, 0, 0, 0, NO_JSON_LENGTH))
    assert f"over the limit of {HANDSHAKE_LIMIT}" in await lane.refusal()


async def test_second_hello_is_refused(served: Served) -> None:
    lane = await RawLane.dial(served.address)
    frame = hello_frame(await lane.challenge())
    lane.send(PREFACE + frame + frame)
    assert "frames of kind 2" in await lane.refusal()


async def test_request_right_behind_hello_is_answered(served: Served) -> None:
    lane = await RawLane.dial(served.address)
    lane.send(PREFACE + hello_frame(await lane.challenge()) + request_frame(1, request([1.0])))
    assert (await lane.frame())[1] == Kind.READY
    assert answer_of(await lane.frame(), 1) == [[2]]
    lane.hang_up()


@pytest.mark.parametrize("said", [b"", MAGIC[:4], PREFACE, PREFACE + b"\x30\x00"])
async def test_peer_that_falls_silent_is_sent_away(socket: Path, said: bytes) -> None:
    async with serving(socket, handshake_s=0.01) as served:
        lane = await RawLane.dial(served.address)
        if said:
            lane.send(said)
        assert await lane.refusal() == "the handshake took longer than 0.01 s"
        await until(lambda: not served.lanes.lanes)


async def test_handshake_deadline_does_not_hit_a_lane_that_is_ready(socket: Path) -> None:
    async with serving(socket, handshake_s=0.02) as served:
        lane = await RawLane.greeted(served.address)
        silent = await RawLane.dial(served.address)
        await silent.refusal()
        assert await lane.ask(1, [1.0]) == [[2]]
        lane.hang_up()


# Bad peers


@pytest.mark.parametrize("kind", [Kind.RESPONSE, Kind.CHUNK, Kind.GOAWAY, Kind.READY, Kind.PONG, 0, 255])
async def test_kinds_that_a_gateway_does_not_send_end_the_lane(served: Served, kind: int) -> None:
    lane = await RawLane.greeted(served.address)
    lane.send(HEADER.pack(0, kind, 0, 0, 1, 0, NO_JSON_LENGTH))
    assert await lane.refusal() == f"a gateway doesn't send frames of kind {int(kind)}"


async def test_refused_peer_is_named_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    lane = await RawLane.dial(served.address)
    lane.send(b"GET / HTTP/1.1\r\n\r\n")
    assert "does not speak the lane protocol" in await lane.refusal()
    assert [record.__dict__["action"] for record in caplog.records] == ["lane_refused"]


async def test_work_read_together_with_garbage_is_dropped_and_counted(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    lane.send(request_frame(1, request([1.0])) + pack(Kind.READY))
    await lane.refusal()
    await until(lambda: served.lanes.batcher.counters.cancelled == 1)
    assert served.runtime.runs == []


patient = settings(deadline=None, max_examples=60)


@patient
@given(st.binary(min_size=1, max_size=200), st.sampled_from(["before", "after"]), st.booleans())
async def test_garbage_costs_nobody_else_an_answer(garbage: bytes, when: str, hang_up: bool) -> None:
    with TemporaryDirectory() as folder:
        async with serving(Path(folder) / "s") as served:
            neighbour = await RawLane.greeted(served.address)
            bad = await (RawLane.dial if when == "before" else RawLane.greeted)(served.address)
            neighbour.send(request_frame(1, request([1.0])))
            bad.send(garbage)
            if hang_up:
                bad.abort()
            neighbour.send(request_frame(2, request([2.0])))
            assert [answer_of(await neighbour.frame(), id) for id in (1, 2)] == [[[2]], [[4]]]
            bad.abort()
            neighbour.hang_up()
            await until(lambda: not served.lanes.lanes)


@patient
@given(st.data(), st.sampled_from(["sync", "async", "stream"]), st.booleans())
async def test_peer_that_closes_at_any_byte_costs_nobody_else_an_answer(
    data: st.DataObject, mode: str, politely: bool
) -> None:
    with TemporaryDirectory() as folder:
        async with serving(Path(folder) / "s", Obedient(mode)) as served:  # type: ignore[arg-type]
            neighbour, leaver = await RawLane.greeted(served.address), await RawLane.dial(served.address)
            whole = PREFACE + hello_frame(await leaver.challenge())
            whole += b"".join(request_frame(id, request([9.0] * 2), FLAG_STREAM) for id in (1, 2))
            leaver.send(whole[: data.draw(st.integers(0, len(whole)))])
            neighbour.send(request_frame(1, request([1.0])))
            await turns(data.draw(st.integers(0, 6)))
            leaver.hang_up() if politely else leaver.abort()
            neighbour.send(request_frame(2, request([2.0])))
            assert [answer_of(await neighbour.frame(), id) for id in (1, 2)] == [[[2]], [[4]]]
            neighbour.hang_up()
            await until(lambda: not served.lanes.lanes and served.lanes.batcher.backlog == 0)


async def test_peer_that_never_reads_costs_nobody_else_an_answer(socket: Path) -> None:
    async with serving(socket) as served:
        deaf, neighbour = await RawLane.greeted(served.address), await RawLane.greeted(served.address)
        big = request_frame(1, request([0.25] * 50_000))
        for _ in range(40):
            deaf.send(big)
        for id in range(20):
            assert await neighbour.ask(id, [float(id)]) == [[2.0 * id]]
        deaf.abort()
        neighbour.hang_up()


# Questions


async def test_ping_and_stats_are_answered_between_requests(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    await lane.ask(1, [1.0], [2.0])
    lane.send(pack(Kind.PING, 5) + pack(Kind.STATS, 6))
    assert (await lane.frame())[1:5:3] == (Kind.PONG, 5)
    counters = await lane.frame()
    assert counters[1:5:3] == (Kind.COUNTERS, 6)
    told = orjson.loads(counters[-1])
    assert (told["succeeded"], told["rows"], told["batches"]) == (1, 2, {"2": 1})
    lane.hang_up()


async def test_report_that_fails_ends_one_lane_and_no_other(socket: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(socket) as served:
        curious, neighbour = await RawLane.greeted(served.address), await RawLane.greeted(served.address)
        served.lanes.report = lambda: {"a": object()}
        curious.send(pack(Kind.STATS, 1))
        assert await curious.refusal() == "this replica failed to read the lane; its log says why"
        assert await neighbour.ask(1, [1.0]) == [[2]]
        neighbour.hang_up()
    assert "not JSON serializable" in caplog.text


# Draining


async def test_drain_answers_everything_that_was_sent(socket: Path) -> None:
    async with serving(socket, Obedient("async"), spec(max_batch_size=1)) as served:
        served.runtime.gate.clear()
        lane = await RawLane.greeted(served.address)
        lane.send(request_frame(1, request([1.0])))
        await until(lambda: bool(served.runtime.runs))
        drain = asyncio.create_task(served.lanes.drain(5))
        assert (await lane.frame())[1] == Kind.GOAWAY
        lane.send(request_frame(2, request([2.0])))
        served.runtime.gate.set()
        assert [answer_of(await lane.frame(), id) for id in (1, 2)] == [[[2]], [[4]]]
        assert not drain.done()
        lane.hang_up()
        await drain
        assert served.lanes.lanes == set()


async def test_draining_replica_takes_no_new_lanes(served: Served) -> None:
    lane = await RawLane.greeted(served.address)
    drain = asyncio.create_task(served.lanes.drain(5))
    await lane.frame()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await RawLane.dial(served.address)
    lane.hang_up()
    await drain


async def test_drain_of_a_replica_without_lanes_ends_at_once(served: Served) -> None:
    async with asyncio.timeout(1):
        await served.lanes.drain(60)


async def test_drain_leaves_behind_a_gateway_that_does_not_go(socket: Path) -> None:
    async with serving(socket) as served:
        lane = await RawLane.greeted(served.address)
        await served.lanes.drain(0.02)
        assert [frame[1] for frame in await lane.rest()] in ([Kind.GOAWAY], [])
        await until(lambda: not served.lanes.lanes)
