"""What calls are told: their answer, what went wrong, or why they were not run."""

import logging
from collections.abc import Sequence

import orjson

from nstarx.errors import DeadlineExceeded, ModelFailed, NStarXError, Overloaded
from nstarx.spec.version import VersionRef
from serving.batch import Batch, Encoded
from serving.call import Call
from serving.codec import Answer, Bodies
from serving.counters import Counters, Times
from serving.traces import Traces

log = logging.getLogger("nstarx.serving")

LOG_EVERY_NS = 1_000_000_000
"""A failing model's stack is logged at most so often: it may fail thousands of times in a second."""


class Responder:
    """Tells calls what they came to, and counts it. Used on the event loop alone."""

    def __init__(self, ref: VersionRef, counters: Counters, traces: Traces) -> None:
        self._ref = ref
        self._counters = counters
        self._traces = traces
        self._last_logged = 0

    def answer(self, batch: Batch, encoded: Encoded, times: Times) -> None:
        """Send a run's answers."""
        calls = batch.calls
        if not isinstance(encoded, Bodies):
            for call, (body, json_length, valid) in zip(calls, encoded, strict=True):
                call.lane.respond(call, 200, body, json_length, valid)
            _flush(calls)
        elif len(calls) == 1:
            calls[0].lane.reply(calls[0], encoded[0])
        elif len({call.lane for call in calls}) == 1:
            calls[0].lane.reply_all(calls, encoded)
        else:
            for call, body in zip(calls, encoded, strict=True):
                call.lane.respond(call, 200, body)
            _flush(calls)
        self._counters.ran(len(calls), batch.rows or len(calls), times)
        if self._traces.open:
            self._traces.ran(calls, times)

    def fail(self, batch: Batch, error: BaseException, began: int, now: int) -> list[Batch]:
        """A run failed. What to run again: each call of several by itself, so that only the bad one fails."""
        if len(batch.calls) > 1:
            return batch.split()
        self.refuse(batch.calls[0], error, began, now)
        return []

    def refuse(self, call: Call, error: BaseException, began: int, now: int, begun: bool = False) -> None:
        """Answer one call with what went wrong; `begun` when the client has a part of its stream already."""
        if not isinstance(error, NStarXError):
            self._log(error, now)
            error = ModelFailed(str(self._ref), _first_line(error))
        self._counters.failed_after(now - began)
        self._traces.failed(call, error.status, began, now)
        # A model's words may hold what UTF-8 can't.
        body = orjson.dumps({"error": error.sentence.encode(errors="replace").decode()})
        if begun:
            call.lane.chunk(call, body)
            call.lane.end(call, error.status)
        else:
            call.lane.respond(call, error.status, body)
        call.lane.flush()

    def end(self, call: Call, whole: Answer | None, times: Times) -> None:
        """A stream is complete: its client has all parts, or gets them as one answer."""
        self._counters.ran(1, 1, times)
        self._traces.ran([call], times)
        if whole:
            call.lane.respond(call, 200, *whole)
        else:
            call.lane.end(call)
        call.lane.flush()

    def forget(self, calls: int) -> None:
        """Nobody waits for so many calls any more; they are told nothing."""
        self._counters.cancelled += calls

    def expire(self, call: Call) -> None:
        """Its deadline passed before its run."""
        self._counters.expired += 1
        self._traces.turned_away(call, DeadlineExceeded.status)
        call.lane.expired(call)
        call.lane.flush()

    def reject(self, calls: Sequence[Call]) -> None:
        """There was no room for them."""
        self._counters.rejected += len(calls)
        for call in calls:
            self._traces.turned_away(call, Overloaded.status)
            call.lane.overloaded(call)
        _flush(calls)

    def _log(self, error: BaseException, now: int) -> None:
        if now - self._last_logged > LOG_EVERY_NS:
            self._last_logged = now
            log.error("%s failed", self._ref, exc_info=error, extra={"action": "model_failed"})


def _flush(calls: Sequence[Call]) -> None:
    if len(calls) == 1:
        calls[0].lane.flush()
        return
    for lane in {call.lane for call in calls}:
        lane.flush()


def _first_line(error: BaseException) -> str:
    """What a client may know of an exception: its kind and the first line of its message."""
    try:
        line = str(error).strip().partition("\n")[0][:200]
    except Exception:  # A model's exceptions are a model's code too.
        line = ""
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
