"""What a replica counts: plain numbers, read when somebody asks."""

import time
from typing import Any

from nstarx.histogram import BUCKETS, bucket_of

Times = tuple[int, int, int, int]
"""When a run began, had its input, had inferred, had its output, in nanoseconds of `time.perf_counter_ns`."""


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
        self._last_run = 0

    def waited(self, nanoseconds: int, calls: int) -> None:
        """So many calls arrived together and waited this long for their run."""
        self.queued_ns += nanoseconds * calls
        self.queue[bucket_of(nanoseconds)] += calls

    def ran(self, calls: int, rows: int, times: Times) -> None:
        """One run of `calls` requests, `rows` rows in all."""
        began, ready, inferred, done = times
        self.succeeded += calls
        self.succeeded_ns += calls * (done - began)
        self.rows += rows
        self.runs += 1
        self.input_ns += ready - began
        self.infer_ns += inferred - ready
        self.output_ns += done - inferred
        self.run[bucket_of(inferred - ready)] += 1
        batches = self.batches
        batches[rows] = batches.get(rows, 0) + 1
        self._last_run = done

    def failed_after(self, nanoseconds: int) -> None:
        """One request failed, its run having taken this long."""
        self.failed += 1
        self.failed_ns += nanoseconds

    def as_dict(self) -> dict[str, Any]:
        """A copy for the wire; `last_inference_ms` is the wall clock's time of the last run, 0 before the first."""
        counts = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        copies = {"queue": list(self.queue), "run": list(self.run), "batches": dict(self.batches)}
        return {**counts, **copies, "last_inference_ms": self._last_inference_ms()}

    def _last_inference_ms(self) -> int:
        # Asked for once a second at the most, told a thousand times: so the wall clock is read here.
        return (time.time_ns() - time.perf_counter_ns() + self._last_run) // 1_000_000 if self._last_run else 0
