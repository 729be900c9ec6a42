"""The shortest way through a replica: one plain call, when nothing else waits and its run stays on the event loop.

What a client meets at a quiet time is its latency, so nothing is done here that one call doesn't need: no queue, no
batch, no groups. It is a third of the time of a small model's run. A call that is anything but plain goes the way of
all others.
"""

from serving.batch import PlainBatch
from serving.bodies import COMPRESSED, LARGE
from serving.call import Call
from serving.codec import Answer, Codec, without_id
from serving.counters import Counters
from serving.runs import FAILURES, Clock, SyncRuns
from serving.traces import Traces


class LoneRun:
    """Runs one call at a time."""

    def __init__(self, runs: SyncRuns, codec: Codec, counters: Counters, traces: Traces, clock: Clock) -> None:
        self._runs = runs
        self._infer = runs.runtime.infer
        self._decode = codec.decode_one
        self._encode = codec.encode_one
        self._codec = codec
        self._counters = counters
        self._traces = traces
        self._clock = clock
        self._mark = PlainBatch([], {}, 0)
        """Stands among the runs under way for whichever call runs."""

    def run(self, call: Call) -> bool:
        """Whether the call has come to its end; otherwise nothing was done."""
        clock, lane = self._clock, call.lane
        now = clock()
        if call.json_length is not None or call.flags & COMPRESSED or len(call.payload) > LARGE:
            return False
        if lane.closed or (call.expires and now >= call.expires):
            return False
        body, tag = without_id(call.payload)
        plain = self._decode(body)
        if plain is None:
            return False
        call.tag = tag
        inputs, rows = plain
        runs, mark = self._runs, self._mark
        runs.under_way[mark] = now
        self._counters.waited(now - call.arrived, 1)
        try:
            ready = clock()
            outputs = self._infer(inputs)
            inferred = clock()
            answer = self._encode(rows, outputs)
            if tag:
                answer = self._tagged(answer, tag)
        except FAILURES as error:
            del runs.under_way[mark]
            runs.finish(PlainBatch([call], inputs, rows), error, now)
            return True
        done = clock()
        del runs.under_way[mark]
        if type(answer) is bytes:
            lane.reply(call, answer)
        else:
            lane.respond(call, 200, *answer)
            lane.flush()
        runs.pace.note(inferred - ready)
        self._counters.ran(1, rows or 1, (now, ready, inferred, done))
        if self._traces.open:
            self._traces.ran([call], (now, ready, inferred, done))
        return True

    def _tagged(self, answer: bytes | Answer, tag: bytes) -> bytes | Answer:
        """The answer with the request's id in it."""
        if isinstance(answer, bytes):
            return self._codec.tagged(answer, tag)
        return answer._replace(body=self._codec.tagged(answer.body, tag))
