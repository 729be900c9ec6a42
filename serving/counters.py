"""What a replica counts: plain numbers, read when somebody asks."""

from typing import Any

from nstarx.histogram import BUCKETS, bucket_of


class Counters:
    """Counts of one replica since its start; durations are nanoseconds.

    Written by the lane thread alone. `queue` and `run` are histograms (nstarx.histogram); `batches` counts runs by the
    number of rows in them.
    """

    def __init__(self) -> None:
        self.succeeded = 0
        self.succeeded_ns = 0
        self.failed = 0
        self.failed_ns = 0
        self.rejected = 0
        self.expired = 0
        self.cancelled = 0
        self.rows = 0
        self.runs = 0
        self.queued_ns = 0
        self.input_ns = 0
        self.infer_ns = 0
        self.output_ns = 0
        self.queue = [0] * BUCKETS
        self.run = [0] * BUCKETS
        self.batches: dict[int, int] = {}
        self.last_inference_ms = 0

    def waited(self, nanoseconds: int, calls: int) -> None:
        """So many calls arrived together and waited this long for their run."""
        self.queued_ns += nanoseconds * calls
        self.queue[bucket_of(nanoseconds)] += calls

    def ran(self, calls: int, rows: int, times: tuple[int, int, int, int], now_ms: int) -> None:
        """One run of `calls` requests, `rows` rows in all; `times`: begin, input ready, inferred, output ready."""
        began, ready, inferred, done = times
        self.succeeded += calls
        self.succeeded_ns += calls * (done - began)
        self.rows += rows
        self.runs += 1
        self.input_ns += ready - began
        self.infer_ns += inferred - ready
        self.output_ns += done - inferred
        self.run[bucket_of(inferred - ready)] += 1
        self.batches[rows] = self.batches.get(rows, 0) + 1
        self.last_inference_ms = now_ms

    def failed_after(self, nanoseconds: int) -> None:
        """One request failed, its run having taken this long."""
        self.failed += 1
        self.failed_ns += nanoseconds

    def as_dict(self) -> dict[str, Any]:
        """A copy for the wire."""
        return {**vars(self), "queue": list(self.queue), "run": list(self.run), "batches": dict(self.batches)}
