"""Stand-ins for what a batcher lives between: a model that does as it is told, and callers that keep what they hear."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import orjson

from cluster.frames import FLAG_STREAM
from nstarx.spec.model import Batching, Limits, ModelSpec
from nstarx.tensors import Tensors
from serving.batcher import Batcher
from serving.call import Call
from serving.runtimes.runtime import Runtime
from serving.traces import Traces
from tests.serving.codec.samples import body, tensor, x

Mode = Literal["sync", "async", "stream"]
Rows = list[list[float]]

POISON = -1.0
"""A run with this value in its inputs fails."""


def double(inputs: Tensors) -> Tensors:
    """What the model answers: twice its input. Rows of POISON make it fail."""
    if (inputs["x"] == POISON).any():
        raise ValueError("poison\nin line two")
    return {"y": inputs["x"] * np.float32(2)}


class Obedient(Runtime):
    """Runs `work`, and remembers what it was given and on which thread."""

    def __init__(self, mode: Mode = "sync", work: Callable[[Tensors], Tensors] = double) -> None:
        self.mode = mode
        self.work = work
        self.parts = 1
        """Partial results that a stream has."""
        self.gate = asyncio.Event()
        """Closed, it holds coroutines up; open at first."""
        self.gate.set()
        self.runs: list[Rows] = []
        self.threads: list[int] = []
        self.now = 0
        self.most = 0
        """How many runs there were at a time."""
        self.reconfigured: list[dict[str, Any]] = []
        self.closed = False

    def load(self) -> None: ...

    def infer(self, inputs: Tensors) -> Tensors:
        self.runs.append(inputs["x"].tolist())
        self.threads.append(threading.get_ident())
        return self.work(inputs)

    async def infer_async(self, inputs: Tensors) -> Tensors:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            self.runs.append(inputs["x"].tolist())
            await self.gate.wait()
            return self.work(inputs)
        finally:
            self.now -= 1

    async def infer_stream(self, inputs: Tensors) -> AsyncIterator[Tensors]:
        for _ in range(self.parts):
            yield await self.infer_async(inputs)

    def reconfigure(self, settings: Any) -> None:
        self.reconfigured.append(dict(settings))

    def close(self) -> None:
        self.closed = True


class Listener:
    """A caller that is a list: what it was told of each call, in order."""

    def __init__(self) -> None:
        self.closed = False
        self.told: list[tuple[int, str]] = []
        self.bodies: dict[int, list[Any]] = {}
        self.statuses: dict[int, int] = {}
        self.invalid: set[int] = set()
        """Calls whose answers were said to be so."""
        self.flushed = 0
        self.writable = asyncio.Event()
        self.writable.set()
        self._news = asyncio.Event()

    def respond(self, call: Call, status: int, body: bytes, json_length: int | None = None, valid: bool = True) -> None:
        self.statuses[call.id] = status
        if not valid:
            self.invalid.add(call.id)
        self._hear(call, "answer", body[:json_length])

    def reply(self, call: Call, body: bytes) -> None:
        self.reply_all([call], [body])

    def reply_all(self, calls: Sequence[Call], bodies: Sequence[bytes]) -> None:
        for call, payload in zip(calls, bodies, strict=True):
            self.respond(call, 200, payload)
        self.flush()

    def chunk(self, call: Call, body: bytes) -> None:
        self._hear(call, "chunk", body)

    def end(self, call: Call, status: int = 200) -> None:
        self._hear(call, "end")

    def expired(self, call: Call) -> None:
        self._hear(call, "expired")

    def overloaded(self, call: Call) -> None:
        self._hear(call, "overloaded")

    def flush(self) -> None:
        self.flushed = len(self.told)

    async def drained(self) -> None:
        await self.writable.wait()

    def _hear(self, call: Call, what: str, body: bytes | None = None) -> None:
        self.told.append((call.id, what))
        self._news.set()
        if body is not None:
            self.bodies.setdefault(call.id, []).append(orjson.loads(body))

    def ends(self, id: int) -> list[str]:
        """What ended a call: one word, if all is well."""
        return [what for told, what in self.told if told == id and what != "chunk"]

    async def heard(self, *ids: int) -> None:
        """Wait until each of these calls has its end. A bound on a hang, not a timing."""
        async with asyncio.timeout(5):
            while not all(map(self.ends, ids)):
                self._news.clear()
                await self._news.wait()

    def rows(self, id: int) -> Rows:
        """The rows of a complete answer."""
        return rows_of(self.bodies[id][0])

    def error(self, id: int) -> str:
        return str(self.bodies[id][-1]["error"])


def rows_of(answer: Any) -> Rows:
    [output] = answer["outputs"]
    rows: Rows = np.reshape(output["data"], output["shape"]).tolist()
    return rows


def spec(max_batch_size: int = 64, max_wait_ms: float = 0.0, columns: int = -1, **limits: Any) -> ModelSpec:
    return ModelSpec(
        name="sample",
        version="1.0.0",
        runtime="python",
        file="model.py",
        sha256="0" * 64,
        inputs=(tensor("x", "FP32", -1, columns),),
        outputs=(tensor("y", "FP32", -1, columns),),
        batching=Batching(max_batch_size=max_batch_size, max_wait_ms=max_wait_ms),
        limits=Limits(**limits),
    )


def request(*rows: Iterable[float], **more: Any) -> bytes:
    """A body with these rows."""
    table = [list(row) for row in rows]
    return body(x(data=[value for row in table for value in row], shape=[len(table), len(table[0])]), **more)


def call(lane: Listener, id: int, *rows: Iterable[float], stream: bool = False, **more: Any) -> Call:
    """A call whose only row is its id, unless rows are given."""
    flags = FLAG_STREAM if stream else 0
    return raw_call(lane, id, request(*(rows or [[float(id)]])), flags=flags, **more)


def raw_call(
    lane: Listener, id: int, payload: bytes, flags: int = 0, arrived: int = 0, expires: int = 0, json: int | None = None
) -> Call:
    return Call(lane, id, payload, json, flags, arrived, expires)


class Clock:
    """Nanoseconds that stand still until told."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_ms(self, milliseconds: float) -> None:
        self.now += int(milliseconds * 1e6)


def batcher(
    runtime: Runtime,
    spec: ModelSpec,
    clock: Callable[[], int] | None = None,
    on_loop: bool = True,
    traces: Traces | None = None,
) -> Batcher:
    """A batcher on the running loop, whose runs are on the loop from the first one unless said otherwise."""
    loop = asyncio.get_running_loop()
    made = Batcher(spec, runtime, loop, clock or time.perf_counter_ns, traces)
    made.pace.on_loop = on_loop
    return made


def outcomes(batcher: Batcher) -> int:
    """Calls that had an end, of whichever sort."""
    c = batcher.counters
    return c.succeeded + c.failed + c.rejected + c.expired + c.cancelled


async def turns(count: int = 20) -> None:
    """Let the loop do what is due."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that another part brings about; a bound on a hang, not a timing."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
