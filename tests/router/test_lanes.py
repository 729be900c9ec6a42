"""The gateway's end of lanes: every waiter hears exactly once what became of its request, and lanes come back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import router.lanes
from cluster.frames import (
    FLAG_STREAM,
    HEADER,
    MAGIC,
    NO_JSON_LENGTH,
    NONCE_BYTES,
    PREFACE,
    Frame,
    FrameReader,
    Kind,
    check_hello,
    pack,
    proof,
)
from cluster.records import ReplicaRecord
from nstarx.errors import LaneError
from router.keeper import Keeper
from router.lanes import Backend, Lane, connect
from tests.router.patron import Patron
from tests.serving.doubles import Obedient, Rows, spec, turns, until
from tests.serving.raw_lane import KEY, NODE, REF, Served, serving

pytestmark = pytest.mark.anyio

LIMIT = 100


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway without patience, for replicas that never answer."""
    monkeypatch.setattr(router.lanes, "CONNECT_S", 0.02)


class Clumsy(Patron):
    """A waiter that fails at whatever it hears."""

    def on_response(self, status: int, flags: int, json: int, body: bytes) -> None:
        raise RuntimeError("dropped it")

    def on_lane_lost(self) -> None:
        raise RuntimeError("didn't listen")


async def ask(lane: Lane, *rows: list[float]) -> Rows:
    patron = Patron(*rows)
    lane.send(patron)
    await until(lambda: bool(patron.heard))
    return patron.rows


class RawReplica:
    """A replica's end of a lane in the hands of a test: it may answer whatever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self._frames = FrameReader(1 << 30)
        self._arrived: list[Frame] = []

    async def frame(self) -> Frame:
        async with asyncio.timeout(5):
            while not self._arrived:
                data = await self._reader.read(1 << 16)
                if not data:
                    raise EOFError("the gateway ended the lane")
                self._arrived += self._frames.feed(data)
        return self._arrived.pop(0)

    async def greet(self, key: bytes = KEY) -> None:
        challenge = b"c" * NONCE_BYTES
        self.send(PREFACE + pack(Kind.CHALLENGE, payload=challenge))
        nonce = check_hello(KEY, challenge, REF, (await self.frame())[-1])
        self.send(pack(Kind.READY, payload=proof(key, b"replica", challenge, nonce, REF.encode())))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def answer(self, id: int, body: bytes = b"{}") -> None:
        self.send(HEADER.pack(len(body), Kind.RESPONSE, 0, 200, id, 0, NO_JSON_LENGTH) + body)

    async def ended(self) -> None:
        """Return when the gateway has ended the lane."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                await self.frame()


@contextlib.asynccontextmanager
async def replica_that(behaves: Callable[[RawReplica], Any], socket: Path) -> AsyncIterator[ReplicaRecord]:
    """A listener whose every connection behaves like this."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaves(RawReplica(reader, writer))
        finally:
            writer.close()

    async with await asyncio.start_unix_server(accept, str(socket)):
        yield ReplicaRecord(replica="r1", ref=REF, node=NODE, addresses=(f"unix:{socket}",), key=KEY.hex())


# Connecting


@pytest.mark.parametrize("place", ["unix", "tcp"])
async def test_lane_is_ready_when_both_ends_have_proved_themselves(socket: Path, place: str) -> None:
    async with serving(socket if place == "unix" else "127.0.0.1") as served:
        lane = await connect(served.record(), LIMIT, NODE)
        assert lane.open
        assert await ask(lane, [1.0]) == [[2]]
        lane.drain()
        await lane.gone


async def test_gateway_of_another_node_comes_by_tcp(socket: Path) -> None:
    async with serving("127.0.0.1") as served:
        record = served.record().model_copy(update={"addresses": (f"unix:{socket}", served.address)})
        lane = await connect(record, LIMIT, "another node")
        assert await ask(lane, [1.0]) == [[2]]
        lane.drain()
        await lane.gone


async def test_unix_socket_that_this_container_cannot_see_is_passed_over(socket: Path) -> None:
    async with serving("127.0.0.1") as served:
        record = served.record().model_copy(update={"addresses": (f"unix:{socket}", served.address)})
        lane = await connect(record, LIMIT, NODE)
        assert await ask(lane, [1.0]) == [[2]]
        lane.drain()
        await lane.gone


async def test_replica_without_an_address_in_reach_is_an_error_that_names_them(socket: Path) -> None:
    async with serving(socket) as served:
        with pytest.raises(LaneError, match="no address that this node can reach"):
            await connect(served.record(), LIMIT, "another node")


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [({"key": "00" * 32}, "does not know this replica's key"), ({"ref": "sample@2.0.0"}, f"serves {REF}")],
)
async def test_refusal_of_the_replica_is_told(socket: Path, parts: dict[str, str], sentence: str) -> None:
    async with serving(socket) as served:
        with pytest.raises(LaneError, match=sentence):
            await connect(served.record(**parts), LIMIT, NODE)


async def test_replica_that_is_not_there_is_an_error(socket: Path) -> None:
    record = ReplicaRecord(replica="r1", ref=REF, node=NODE, addresses=(f"unix:{socket}",), key=KEY.hex())
    with pytest.raises(LaneError, match=REF):
        await connect(record, LIMIT, NODE)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the lane protocol"),
        (MAGIC + b"\x02" + pack(Kind.CHALLENGE), "lane protocol 2, this side 1"),
        (PREFACE + pack(Kind.READY, payload=b"x" * 32), "does not know its own key"),
        (PREFACE + pack(Kind.READY), "does not know its own key"),
        (PREFACE + pack(Kind.PONG), "doesn't start with a frame of kind 25"),
        (PREFACE + pack(Kind.GOAWAY, payload=b"not today"), "not today"),
        (PREFACE + pack(Kind.CHALLENGE, payload=b"x" * 5000), "over the limit of 4096"),
        (b"", "closed the lane during the handshake"),
        (PREFACE[:3], "closed the lane during the handshake"),
    ],
)
async def test_replica_that_answers_nonsense_is_left_at_once(socket: Path, said: bytes, sentence: str) -> None:
    async def behave(replica: RawReplica) -> None:
        replica.send(said)

    async with replica_that(behave, socket) as record:
        with pytest.raises(LaneError, match=sentence):
            await connect(record, LIMIT, NODE)


async def test_impostor_without_the_key_is_left_at_once(socket: Path) -> None:
    async with replica_that(lambda replica: replica.greet(b"x" * 32), socket) as record:
        with pytest.raises(LaneError, match="does not know its own key"):
            await connect(record, LIMIT, NODE)


@pytest.mark.usefixtures("quick")
async def test_replica_that_says_nothing_is_left_and_its_connection_closed(socket: Path) -> None:
    left = asyncio.Event()

    async def stay_silent(replica: RawReplica) -> None:
        await replica.ended()
        left.set()

    async with replica_that(stay_silent, socket) as record:
        with pytest.raises(LaneError, match="no answer"):
            await connect(record, LIMIT, NODE)
        async with asyncio.timeout(5):
            await left.wait()


async def test_connection_of_a_gateway_that_changes_its_mind_is_closed(socket: Path) -> None:
    met, left = asyncio.Event(), asyncio.Event()

    async def stay_silent(replica: RawReplica) -> None:
        met.set()
        await replica.ended()
        left.set()

    async with replica_that(stay_silent, socket) as record:
        attempt = asyncio.create_task(connect(record, LIMIT, NODE))
        await met.wait()
        attempt.cancel()
        async with asyncio.timeout(5):
            await left.wait()
        with pytest.raises(asyncio.CancelledError):
            await attempt


# Answers


@contextlib.asynccontextmanager
async def lane_to(socket: Path, limit: int = LIMIT) -> AsyncIterator[tuple[Lane, RawReplica]]:
    """A ready lane, and the replica's end of it."""
    met: asyncio.Future[RawReplica] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def behave(replica: RawReplica) -> None:
        await replica.greet()
        met.set_result(replica)
        await over.wait()

    async with replica_that(behave, socket) as record:
        lane = await connect(record, limit, NODE)
        try:
            yield lane, await met
        finally:
            over.set()
            lane.abort()
            await lane.gone
            await turns()


async def test_replica_at_rest_gets_the_first_request_at_once_and_the_others_of_the_turn_in_one_write(
    socket: Path,
) -> None:
    async with serving(socket) as served:
        lane = await connect(served.record(), LIMIT, NODE)
        patrons = [Patron([float(n)]) for n in range(5)]
        for patron in patrons:
            lane.send(patron)
        await until(lambda: all(patron.heard for patron in patrons))
        assert served.runtime.runs == [[[0.0]], [[float(n)] for n in range(1, 5)]]
        assert [patron.rows for patron in patrons] == [[[2.0 * n]] for n in range(5)]
        lane.drain()
        await lane.gone


async def test_every_kind_of_end_is_told_to_whom_it_belongs(socket: Path) -> None:
    async with lane_to(socket) as (lane, replica):
        patrons = {what: Patron([1.0]) for what in ("response", "end", "expired", "overloaded", "lost")}
        ids = {what: lane.send(patron) for what, patron in patrons.items()}
        replica.answer(ids["response"])
        replica.send(pack(Kind.CHUNK, ids["end"], b"{}") + pack(Kind.END, ids["end"]))
        replica.send(pack(Kind.EXPIRED, ids["expired"]) + pack(Kind.OVERLOADED, ids["overloaded"]))
        await until(lambda: len(lane.waiting) == 1)
        replica.writer.close()
        await lane.gone
        assert {what: patron.heard[-1] for what, patron in patrons.items()} == {what: what for what in patrons}
        assert patrons["end"].heard == ["chunk", "end"]


async def test_answers_to_nobody_are_ignored(socket: Path) -> None:
    async with lane_to(socket) as (lane, replica):
        patron = Patron([1.0])
        id = lane.send(patron)
        for kind in (Kind.RESPONSE, Kind.CHUNK, Kind.END, Kind.EXPIRED, Kind.OVERLOADED, Kind.COUNTERS):
            replica.send(pack(kind, id + 1000))
        replica.answer(id)
        replica.answer(id)
        await until(lambda: bool(patron.heard))
        await turns()
        assert patron.heard == ["response"]
        assert lane.open


async def test_waiter_that_fails_costs_the_others_nothing(socket: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with lane_to(socket) as (lane, replica):
        clumsy, patron, clumsy_too, patron_too = Clumsy([1.0]), Patron([1.0]), Clumsy([1.0]), Patron([1.0])
        first, second, *_ = [lane.send(waiter) for waiter in (clumsy, patron, clumsy_too, patron_too)]
        replica.answer(first)
        replica.answer(second)
        await until(lambda: bool(patron.heard))
        replica.writer.close()
        await lane.gone
        assert patron.heard == ["response"]
        assert patron_too.heard == ["lost"]
    assert [record.__dict__["action"] for record in caplog.records] == ["answer_lost"] * 2


@pytest.mark.parametrize("said", [b"\xff" * 30, pack(Kind.REQUEST, 1), pack(Kind.CHALLENGE), pack(Kind.READY)])
async def test_replica_that_breaks_the_protocol_is_left_and_all_who_wait_are_told(socket: Path, said: bytes) -> None:
    async with lane_to(socket) as (lane, replica):
        patrons = [Patron([1.0]) for _ in range(3)]
        for patron in patrons:
            lane.send(patron)
        replica.send(said)
        await lane.gone
        assert [patron.heard for patron in patrons] == [["lost"]] * 3
        assert not lane.open


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.data())
async def test_replica_that_dies_at_any_byte_is_told_exactly_once_to_each_who_waits(
    count: int, data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        async with lane_to(Path(folder) / "s") as (lane, replica):
            patrons = [Patron([1.0]) for _ in range(count)]
            ids = [lane.send(patron) for patron in patrons]
            answers = b"".join(pack(Kind.RESPONSE, id, b"{}", status=200) for id in ids)
            cut = data.draw(st.integers(0, len(answers)))
            replica.send(answers[:cut])
            replica.writer.close()
            await lane.gone
            answered = cut // len(pack(Kind.RESPONSE, 1, b"{}"))
            assert [patron.heard for patron in patrons] == [["response"]] * answered + [["lost"]] * (count - answered)
            assert lane.waiting == {}


async def test_loss_is_told_after_the_lane_is_out_of_the_choice(socket: Path) -> None:
    """Whoever repeats a request the moment it hears of the loss must not be sent to the dead lane again."""
    backend = Backend(REF)
    picked: list[Lane | None] = []

    class Persistent(Patron):
        def on_lane_lost(self) -> None:
            picked.append(backend.pick())

    async with lane_to(socket) as (lane, replica):
        backend.add(lane)
        lane.send(Persistent([1.0]))
        replica.writer.close()
        await lane.gone
    assert picked == [None]


# Cancelling


async def test_cancelled_request_is_withdrawn_and_never_heard_of_again(socket: Path) -> None:
    async with lane_to(socket) as (lane, replica):
        patron, other = Patron([1.0]), Patron([2.0])
        id, other_id = lane.send(patron), lane.send(other)
        assert [(await replica.frame())[4] for _ in range(2)] == [id, other_id]
        lane.cancel(id)
        lane.cancel(id)
        cancel = await replica.frame()
        assert cancel[1:5:3] == (Kind.CANCEL, id)
        replica.answer(id)
        replica.answer(other_id)
        await until(lambda: bool(other.heard))
        assert patron.heard == []
        assert lane.waiting == {}


async def test_request_cancelled_in_the_turn_it_was_sent_follows_it(socket: Path) -> None:
    async with lane_to(socket) as (lane, replica):
        lane.cancel(lane.send(Patron([1.0])))
        assert [(await replica.frame())[1] for _ in range(2)] == [Kind.REQUEST, Kind.CANCEL]


async def test_stream_that_nobody_reads_any_more_ends_in_the_replica(socket: Path) -> None:
    async with serving(socket, Obedient("stream")) as served:
        served.runtime.parts = 1_000_000_000
        lane = await connect(served.record(), LIMIT, NODE)
        patron = Patron([1.0], flags=FLAG_STREAM)
        id = lane.send(patron)
        await until(lambda: "chunk" in patron.heard)
        lane.cancel(id)
        await until(lambda: served.lanes.batcher.backlog == 0)
        assert served.lanes.batcher.counters.cancelled == 1
        lane.drain()
        await lane.gone


# Draining


async def test_draining_lane_takes_nothing_new_and_closes_after_the_last_answer(socket: Path) -> None:
    backend = Backend(REF)
    async with lane_to(socket) as (lane, replica):
        backend.add(lane)
        patrons = [Patron([1.0]) for _ in range(2)]
        ids = [lane.send(patron) for patron in patrons]
        replica.send(pack(Kind.GOAWAY, payload=b"draining"))
        await until(lambda: not lane.open)
        assert backend.pick() is None
        replica.answer(ids[0])
        await until(lambda: bool(patrons[0].heard))
        await turns()
        assert not lane.gone.done()
        replica.answer(ids[1])
        await replica.ended()
        assert [patron.heard for patron in patrons] == [["response"]] * 2


async def test_draining_lane_closes_when_its_last_request_is_cancelled(socket: Path) -> None:
    async with lane_to(socket) as (lane, replica):
        id = lane.send(Patron([1.0]))
        lane.drain()
        lane.cancel(id)
        await replica.ended()


async def test_replica_that_drains_answers_all_and_loses_its_lanes(socket: Path) -> None:
    async with serving(socket, Obedient("async"), spec(max_batch_size=1)) as served:
        served.runtime.gate.clear()
        lanes = [await connect(served.record(), LIMIT, NODE) for _ in range(2)]
        patrons = [Patron([float(n)]) for n in range(6)]
        for n, patron in enumerate(patrons):
            lanes[n % 2].send(patron)
        await until(lambda: served.lanes.batcher.backlog == 6)
        drain = asyncio.create_task(served.lanes.drain(5))
        await until(lambda: not any(lane.open for lane in lanes))
        served.runtime.gate.set()
        await drain
        assert [patron.rows for patron in patrons] == [[[2.0 * n]] for n in range(6)]
        await asyncio.gather(*[lane.gone for lane in lanes])


# Questions


async def test_counters_are_asked_over_the_lane(socket: Path) -> None:
    async with serving(socket) as served:
        lane = await connect(served.record(), LIMIT, NODE)
        await ask(lane, [1.0])
        assert orjson.loads(await lane.ask())["succeeded"] == 1
        lane.drain()
        await lane.gone


async def test_question_fails_when_the_lane_ends_before_or_after_it(socket: Path) -> None:
    async with lane_to(socket) as (lane, replica):
        question = lane.ask()
        assert (await replica.frame())[1] == Kind.STATS
        replica.writer.close()
        with pytest.raises(LaneError, match="ended before the answer"):
            await question
        with pytest.raises(LaneError, match="has ended"):
            await lane.ask()


async def test_ids_begin_anew_after_the_last(socket: Path) -> None:
    async with serving(socket) as served:
        lane = await connect(served.record(), LIMIT, NODE)
        lane._last_id = 0xFFFFFFFE
        assert [await ask(lane, [float(n)]) for n in range(3)] == [[[0]], [[2]], [[4]]]
        lane.drain()
        await lane.gone


# Choosing


class Loads:
    """A backend over lanes with so many requests waiting each."""

    def __init__(self, *waiting: int, limit: int = LIMIT) -> None:
        self.backend = Backend(REF)
        record = ReplicaRecord(replica="r", ref=REF, node=NODE, addresses=())
        for count in waiting:
            lane = Lane(record, limit, asyncio.get_running_loop())
            lane.waiting = {id: Patron([1.0]) for id in range(count)}
            lane.open = True
            self.backend.add(lane)
        self.lanes = list(self.backend.lanes)

    def picks(self, times: int) -> set[int]:
        return {self.lanes.index(lane) if (lane := self.backend.pick()) else -1 for _ in range(times)}


async def test_no_lane_is_no_choice() -> None:
    assert Loads().backend.pick() is None


async def test_only_lane_is_taken_until_it_is_full() -> None:
    assert Loads(LIMIT - 1).picks(3) == {0}
    assert Loads(LIMIT).picks(3) == {-1}


async def test_less_loaded_of_two_is_taken() -> None:
    assert Loads(5, 4).picks(50) == {1}


async def test_most_loaded_of_many_is_never_taken() -> None:
    assert Loads(3, 9, 3, 3).picks(300) == {0, 2, 3}


async def test_idle_lanes_all_get_their_turn() -> None:
    assert Loads(0, 0, 0).picks(100) == {0, 1, 2}


async def test_full_lanes_are_skipped() -> None:
    assert Loads(LIMIT, LIMIT, LIMIT, 7, LIMIT).picks(100) == {3}
    assert Loads(LIMIT, LIMIT).picks(10) == {-1}


async def test_lane_that_is_no_longer_open_is_not_added() -> None:
    loads = Loads(1)
    lane = loads.lanes[0]
    lane.drain()
    assert loads.backend.lanes == []
    loads.backend.add(lane)
    assert loads.backend.lanes == []


async def test_replica_that_reads_too_slowly_gets_no_more_until_it_has_read(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router.lanes, "WRITE_BUFFER", 1 << 16)
    backend = Backend(REF)
    async with lane_to(socket) as (lane, replica):
        backend.add(lane)
        replica._reader._transport.pause_reading()  # type: ignore[attr-defined]
        patron = Patron(body=b"x" * (8 << 20))
        id = lane.send(patron)
        await until(lambda: backend.pick() is None)
        assert lane.full
        replica._reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert (await replica.frame())[4] == id
        await until(lambda: backend.pick() is lane)
        assert lane.limit == LIMIT


# Keeping


class Kept:
    """A keeper, its backend, and the losses that it reported."""

    def __init__(self, record: ReplicaRecord) -> None:
        self.backend = Backend(REF)
        self.lost: list[str] = []
        self.keeper = Keeper(record, LIMIT, self.backend, NODE, self.report)

    async def report(self, replica: str) -> None:
        self.lost.append(replica)

    async def lane(self) -> Lane:
        await until(lambda: bool(self.backend.lanes))
        return self.backend.lanes[0]


async def release(kept: Kept) -> None:
    kept.keeper.release()
    if kept.keeper.lane:
        await kept.keeper.lane.gone
    await turns()


async def test_keeper_comes_back_when_the_replicas_lanes_do(socket: Path) -> None:
    async with serving(socket) as served:
        kept = Kept(served.record())
        first = await kept.lane()
    await first.gone
    assert kept.backend.pick() is None
    await until(lambda: kept.lost[:1] == ["r1"])
    async with serving(socket):
        again = await kept.lane()
        assert again is not first
        assert await ask(again, [1.0]) == [[2]]
        await release(kept)


async def test_released_keeper_lets_its_lane_finish_and_opens_no_other(socket: Path) -> None:
    async with serving(socket, Obedient("async")) as served:
        served.runtime.gate.clear()
        kept = Kept(served.record())
        lane = await kept.lane()
        patron = Patron([1.0])
        lane.send(patron)
        await until(lambda: bool(served.runtime.runs))
        kept.keeper.release()
        assert kept.backend.pick() is None
        served.runtime.gate.set()
        await lane.gone
        assert patron.rows == [[2]]
        await until(lambda: not served.lanes.lanes)
        await turns()
        assert served.lanes.lanes == set()
        assert kept.lost == []


async def test_keeper_released_while_it_connects_leaves_nothing_behind(socket: Path) -> None:
    async with serving(socket) as served:
        for rounds in range(12):
            kept = Kept(served.record())
            await turns(rounds)
            kept.keeper.release()
            await until(kept.keeper._task.done)
            await until(lambda: not served.lanes.lanes)


async def test_coordinator_that_is_gone_keeps_no_keeper_from_its_work(socket: Path) -> None:
    async def fail(replica: str) -> None:
        raise RuntimeError("no coordinator")

    backend = Backend(REF)
    async with serving(socket) as served:
        keeper = Keeper(served.record(), LIMIT, backend, NODE, fail)
        await until(lambda: bool(backend.lanes))
        first = backend.lanes[0]
        first.abort()
        await until(lambda: bool(backend.lanes) and backend.lanes[0] is not first)
        keeper.release()
        await backend_gone(served)


async def backend_gone(served: Served) -> None:
    await until(lambda: not served.lanes.lanes)
    await turns()
