"""The end of waiting that takes too long. One sweep over what is in flight costs less than a timer each."""

from collections.abc import Iterable

from router.exchange import Exchange
from router.hedging import Hedge
from router.lanes import Lane


def expire_overdue(lanes: Iterable[Lane], now: int) -> None:
    """Tell every exchange that waits longer than it should. `now` is on the clock of `time.perf_counter_ns`."""
    for lane in lanes:
        for call in list(lane.waiting.values()):
            if isinstance(call, Exchange | Hedge) and call.due <= now:
                call.expire()
