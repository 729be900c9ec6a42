"""What counters say when they are asked."""

import time

from serving.counters import Counters


def test_time_of_the_last_inference_is_that_of_the_wall_clock() -> None:
    counters = Counters()
    assert counters.as_dict()["last_inference_ms"] == 0
    done = time.perf_counter_ns() - 5_000_000_000
    counters.ran(1, 1, (done - 30, done - 20, done - 10, done))
    before = time.time() * 1000 - 5000
    assert -1000 < counters.as_dict()["last_inference_ms"] - before < 1000


def test_reading_shows_names_and_not_what_is_kept_inside() -> None:
    counters = Counters()
    reading = counters.as_dict()
    assert not [name for name in reading if name.startswith("_")]
    reading["queue"][3] = 9
    assert counters.queue[3] == 0
