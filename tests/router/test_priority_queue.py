"""Who waits, in which order, and who has to leave."""

from hypothesis import given, settings
from hypothesis import strategies as st

from nstarx.spec.admission import QueueSpec
from router.priority_queue import NEVER, PriorityQueue


def queue(size: int = 100, levels: int = 3, default: int = 2, **level_queue_size: int) -> PriorityQueue[str]:
    sizes = {int(level[1:]): room for level, room in level_queue_size.items()}
    return PriorityQueue(
        QueueSpec(max_queue_size=size, priority_levels=levels, default_priority_level=default, level_queue_size=sizes)
    )


def push(waiting: PriorityQueue[str], *names: str, deadline: int = NEVER, now: int = 0) -> None:
    """The first character of a name is its priority."""
    for name in names:
        assert waiting.push(name, int(name[0]), deadline, now).ticket is not None


def drained(waiting: PriorityQueue[str], now: int = 0) -> list[str]:
    names = []
    while (name := waiting.pop(now)[0]) is not None:
        names.append(name)
    return names


def test_highest_priority_goes_first_and_in_it_who_came_first() -> None:
    waiting = queue()
    push(waiting, "3a", "1a", "2a", "1b", "3b")
    assert drained(waiting) == ["1a", "1b", "2a", "3a", "3b"]
    assert waiting.size == 0


def test_no_priority_and_unknown_ones_are_the_default() -> None:
    waiting = queue()
    push(waiting, "3a", "9a", "0a", "2a", "1a")
    assert drained(waiting) == ["1a", "9a", "0a", "2a", "3a"]


def test_when_it_is_full_the_lowest_and_latest_makes_room() -> None:
    waiting = queue(3)
    push(waiting, "3a", "3b", "2a")
    assert waiting.push("1a", 1, NEVER, 0).displaced == "3b"
    assert waiting.push("2b", 2, NEVER, 0).displaced == "3a"
    refused = waiting.push("2c", 2, NEVER, 0)
    assert (refused.ticket, refused.displaced) == (None, None)
    assert waiting.push("1b", 1, NEVER, 0).displaced == "2b"
    assert drained(waiting) == ["1a", "1b", "2a"]


def test_nobody_may_wait() -> None:
    assert queue(0).push("1a", 1, NEVER, 0).ticket is None


def test_level_with_a_size_of_its_own_is_full_before_the_queue_is() -> None:
    waiting = queue(10, l3=1)
    push(waiting, "3a")
    assert waiting.push("3b", 3, NEVER, 0).ticket is None
    push(waiting, "2a")


def test_who_is_too_late_is_not_given_out() -> None:
    waiting = queue()
    push(waiting, "1a", "2a", deadline=10)
    push(waiting, "2b", deadline=30)
    assert waiting.pop(10) == ("2b", ["1a", "2a"])


def test_who_is_too_late_makes_room_before_anybody_is_displaced() -> None:
    waiting = queue(2)
    push(waiting, "1a", deadline=10)
    push(waiting, "3a", deadline=50)
    pushed = waiting.push("2a", 2, 50, 20)
    assert (pushed.expired, pushed.displaced) == (["1a"], None)
    assert drained(waiting, 20) == ["2a", "3a"]


def test_who_goes_away_leaves_its_place() -> None:
    waiting = queue(2)
    ticket = waiting.push("3a", 3, NEVER, 0).ticket
    push(waiting, "1a")
    assert ticket is not None
    assert waiting.withdraw(ticket)
    assert not waiting.withdraw(ticket)
    push(waiting, "1b")
    assert drained(waiting) == ["1a", "1b"]


OPERATION = st.one_of(
    st.tuples(st.just("push"), st.integers(0, 4), st.integers(0, 40)),
    st.tuples(st.just("pop"), st.just(0), st.just(0)),
    st.tuples(st.just("withdraw"), st.integers(0, 30), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(operations=st.lists(OPERATION, max_size=80), size=st.integers(0, 6), level=st.integers(0, 6))
def test_everybody_leaves_exactly_once_and_never_too_late(
    operations: list[tuple[str, int, int]], size: int, level: int
) -> None:
    waiting = queue(size, l2=level)
    inside: dict[str, tuple[int, int]] = {}
    for now, (what, number, patience) in enumerate(operations):
        left: list[str | None] = []
        if what == "push":
            pushed = waiting.push(str(now), number, now + patience, now)
            left = [*pushed.expired, pushed.displaced]
            if pushed.ticket is not None:
                inside[str(now)] = (pushed.ticket, now + patience)
            assert all(inside[name][1] <= now for name in pushed.expired)
        elif what == "pop":
            name, expired = waiting.pop(now)
            left = [name, *expired]
            assert name is None or inside[name][1] > now
            assert all(inside[name][1] <= now for name in expired)
        elif str(number) in inside:
            assert waiting.withdraw(inside[str(number)][0])
            left = [str(number)]
        for name in filter(None, left):
            del inside[name]
        assert waiting.size == len(inside) <= size
