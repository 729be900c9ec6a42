"""The end of requests that take too long. One sweep over what is in flight costs less than a timer each."""

from collections.abc import Iterable

from router.exchange import Exchange
from router.lanes import Lane


def expire_overdue(lanes: Iterable[Lane], now: int) -> None:
    """End every exchange whose deadline has passed. `now` is on the clock of `time.perf_counter_ns`."""
    for lane in lanes:
        for call in list(lane.waiting.values()):
            if isinstance(call, Exchange) and call.deadline <= now:
                call.expire()
