"""When a gateway has no time for anything but its clients."""

import threading
import time

import pytest

from router import pressure as module
from router.pressure import INTERVAL_S, Pressure, at_work

LOOK = int(INTERVAL_S * 1e9)
MS = 1_000_000
START = 5_000 * MS


def after(passed: int, used: int) -> bool:
    pressure = Pressure()
    pressure.look(START, START)
    pressure.look(START + passed, START + used)
    return pressure.busy


def test_loop_that_is_in_time_and_mostly_idle_has_time() -> None:
    assert not after(LOOK, 10 * MS)
    assert not after(LOOK + 19 * MS, 10 * MS)


def test_loop_that_is_late_has_none() -> None:
    assert after(LOOK + 21 * MS, 10 * MS)


def test_loop_that_works_nearly_all_the_time_has_none() -> None:
    assert not after(LOOK, 74 * MS)
    assert after(LOOK, 76 * MS)


def test_first_look_knows_nothing_and_the_next_one_forgets_the_last() -> None:
    pressure = Pressure()
    seen = []
    for now, cpu in ((START, START), (START + 5 * LOOK, START), (START + 6 * LOOK, START + MS)):
        pressure.look(now, cpu)
        seen.append(pressure.busy)
    assert seen == [False, True, False]


def worked(seconds: float) -> float:
    """What a thread that works for so long says of it, in seconds."""
    seen: list[int] = []

    def work() -> None:
        seen.append(at_work())
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass
        seen.append(at_work())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return (seen[1] - seen[0]) / 1e9


def test_thread_that_works_all_the_time_says_so_however_many_share_the_cpus() -> None:
    assert worked(0.05) > 0.04


def test_system_that_tells_nothing_of_waiting_tells_of_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCHEDULE", "/proc/there-is-no-such-file")
    assert 0 < worked(0.05) < 0.2
