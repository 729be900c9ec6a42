"""A set of callers that is small, forgets nobody, and is wrong about few."""

from judging.callers import FULL, Callers


def test_a_caller_is_new_once() -> None:
    callers = Callers()
    assert callers.add("alice")
    assert callers.add("bob")
    assert not callers.add("alice")


def test_few_new_callers_are_taken_for_known_ones() -> None:
    callers = Callers()
    assert sum(callers.add(f"caller-{number}") for number in range(100_000)) > 99_990
    assert not any(callers.add(f"caller-{number}") for number in range(0, 100_000, 97))


def test_it_survives_a_restart() -> None:
    callers = Callers()
    callers.add("alice")
    restarted = Callers.from_json(callers.to_json())
    assert restarted == callers
    assert not restarted.add("alice")
    assert restarted.add("bob")
    assert Callers.from_json(Callers().to_json()) == Callers()


def test_a_full_set_takes_nobody_in() -> None:
    callers = Callers()
    callers._set = FULL
    assert not callers.add("alice")
