"""When a gateway has no time for anything but its clients."""

from router.pressure import INTERVAL_S, Pressure

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
