"""Events: numbered, kept for a while, waited for, and handed from one life of the coordinator to the next."""

import asyncio
import inspect
import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.events import Event, EventKind, EventLog
from nstarx.cli.events import json_line, line

pytestmark = pytest.mark.anyio

BORN = 1_767_225_600.25
"""2026-01-01 00:00:00.250 UTC."""


def add(log: EventLog, what: str = "it happened", **about: Any) -> Event:
    return log.add(EventKind.DEMOTED, BORN, what, **about)


def sentences(events: tuple[Event, ...]) -> list[str]:
    return [event.sentence for event in events]


def filled(*what: str, born: float = BORN, size: int = 1000) -> EventLog:
    log = EventLog(born, size)
    for sentence in what:
        add(log, sentence)
    return log


# Reading


def test_events_are_read_on_from_any_number() -> None:
    log = filled("a", "b", "c", "d")
    first, second, *_ = log.after(0)
    assert sentences(log.after(first.number)) == ["b", "c", "d"]
    assert sentences(log.after(second.number, limit=1)) == ["c"]
    assert sentences(log.latest(2)) == ["c", "d"]
    assert log.latest(0) == log.after(log.latest(1)[0].number) == ()


def test_log_keeps_the_latest_and_knows_who_has_a_gap() -> None:
    log = filled("a", "b", "c", size=3)
    seen = log.after(0, limit=1)[0].number
    add(log, "d")
    assert sentences(log.after(0)) == ["b", "c", "d"]
    assert not log.missed(seen)
    add(log, "e")
    assert log.missed(seen)
    assert sentences(log.after(seen)) == ["c", "d", "e"]


def test_details_are_copied_and_become_json() -> None:
    log = EventLog(BORN)
    inner = [1]
    event = add(log, details={"counts": inner, "p": np.float64(0.5), 3: {"x": float("nan")}, "what": object})
    inner.append(2)
    assert event.details == {"counts": [1], "p": 0.5, "3": {"x": None}, "what": str(object)}


def test_event_survives_the_wire() -> None:
    event = add(EventLog(BORN), route="iris", version="iris@1.1.0", gateway="g1", details={"z": 4.5})
    assert Event.model_validate_json(event.model_dump_json()) == event
    assert Event.model_validate(orjson.loads(orjson.dumps(event.model_dump(mode="json")))) == event


def test_every_kind_has_a_name_in_the_style_of_kubernetes_and_a_sentence_of_its_own() -> None:
    for kind in EventKind:
        assert re.fullmatch(r"([A-Z][a-z]+)+", kind.value)
        assert kind.name == re.sub(r"(?<!^)(?=[A-Z])", "_", kind.value).upper()
        assert re.fullmatch(r"[A-Z].{20,}\.", kind.meaning)
    assert len({kind.meaning for kind in EventKind}) == len(EventKind)


# Waiting


async def test_who_waits_gets_the_next_event_at_once() -> None:
    log = filled("a")
    seen = log.latest(1)[0].number
    waiting = [asyncio.create_task(log.wait(seen, 60)) for _ in range(2)]
    await asyncio.sleep(0)
    add(log, "b")
    async with asyncio.timeout(5):
        assert [sentences(events) for events in await asyncio.gather(*waiting)] == [["b"], ["b"]]


async def test_what_is_there_already_is_not_waited_for() -> None:
    assert sentences(await filled("a", "b").wait(0, 0, limit=1)) == ["a"]


async def test_waiting_ends_with_nothing_when_nothing_happens() -> None:
    log = filled("a")
    assert await log.wait(log.latest(1)[0].number, 0.01) == ()


async def test_what_is_adopted_from_long_ago_wakes_nobody_who_has_seen_more() -> None:
    log = filled("a")
    waiting = asyncio.create_task(log.wait(log.latest(1)[0].number, 60))
    await asyncio.sleep(0)
    log.adopt(filled("old", born=BORN - 100).latest())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    add(log, "b")
    assert sentences(await waiting) == ["b"]


# Lives of the coordinator


def test_follower_of_a_former_life_goes_on_in_the_next_even_if_nobody_remembers() -> None:
    former = filled(*map(str, range(50)))
    seen = former.latest(1)[0].number
    assert sentences(filled("new", born=BORN + 1).after(seen)) == ["new"]


def test_next_life_takes_over_what_gateways_hold_before_its_own() -> None:
    former = filled("a", "b", "c", "d")
    log = filled("new", born=BORN + 60)
    number = log.latest(1)[0].number
    log.adopt(former.latest(2))
    log.adopt(former.after(0, limit=3))
    assert sentences(log.after(0)) == ["a", "b", "c", "d", "new"]
    assert log.latest(1)[0].number == number
    add(log, "newer")
    assert sentences(log.after(number)) == ["newer"]


def test_third_life_knows_the_first() -> None:
    second = filled("two", born=BORN + 10)
    second.adopt(filled("one").latest())
    third = filled("three", born=BORN + 20)
    third.adopt(second.latest())
    assert sentences(third.after(0)) == ["one", "two", "three"]


def test_own_events_come_last_though_the_clock_was_set_back() -> None:
    former = filled("a", "b")
    seen = former.latest(1)[0].number
    log = filled("new", born=BORN - 60)
    log.adopt(former.latest())
    assert sentences(log.after(seen)) == ["new"]
    add(log, "newer")
    former_still = add(former, "c")
    log.adopt(former.latest())
    assert sentences(log.after(0)) == ["a", "b", "c", "new", "newer"]
    assert sentences(log.after(former_still.number)) == ["new", "newer"]


def test_adopted_events_make_room_for_own_ones() -> None:
    log = filled("x", "y", born=BORN + 60, size=3)
    log.adopt(filled("a", "b", "c").latest())
    assert sentences(log.after(0)) == ["c", "x", "y"]
    assert log.missed(0)
    assert not log.missed(log.after(0)[0].number)


@given(
    lives=st.lists(
        st.tuples(st.integers(-50, 50), st.integers(0, 5), st.lists(st.integers(0, 5), max_size=3)), max_size=6
    )
)
def test_numbers_rise_whatever_the_clocks_say_and_nothing_that_is_held_is_lost(
    lives: list[tuple[int, int, list[int]]],
) -> None:
    log, count = EventLog(BORN), 0
    for milliseconds, events, held in lives:
        heir = EventLog(BORN + milliseconds / 1000)
        for _ in range(events):
            add(heir, str(count))
            count += 1
        known = {sentence for limit in held for sentence in sentences(log.latest(limit))}
        for limit in held:
            heir.adopt(log.latest(limit))
        seen = set(sentences(heir.after(0)))
        assert seen == known | {str(n) for n in range(count - events, count)}
        numbers = [event.number for event in heir.after(0)]
        assert numbers == sorted(set(numbers))
        assert add(heir, "last").number > max(numbers, default=0)
        log = heir


# Printing


def test_line_for_people_says_when_what_about_what_and_why() -> None:
    event = add(EventLog(BORN), "it failed 40 of 50 requests", route="iris", version="iris@1.1.0")
    assert re.split(r"  +", line(event.model_dump(mode="json"))) == [
        "2026-01-01 00:00:00.250Z",
        "Demoted",
        "iris@1.1.0",
        "it failed 40 of 50 requests",
    ]


@pytest.mark.parametrize(
    ("about", "subject"),
    [
        ({"route": "flowers", "version": "iris@1.1.0"}, "iris@1.1.0 (flowers)"),
        ({"route": "flowers"}, "flowers"),
        ({"gateway": "g1"}, "g1"),
        ({}, "-"),
    ],
)
def test_line_names_what_the_event_is_about(about: dict[str, str], subject: str) -> None:
    assert f"  {subject}  " in line(add(EventLog(BORN), **about).model_dump(mode="json"))


@given(text=st.text(min_size=1))
def test_an_event_is_one_line_whatever_is_in_it(text: str) -> None:
    event = add(EventLog(BORN), text, version=text, details={"x": text}).model_dump(mode="json")
    for printed in (line(event), json_line(event)):
        assert len(printed.splitlines()) == 1
        assert "\x1b" not in printed
    assert orjson.loads(json_line(event)) == event


def test_kinds_of_a_newer_server_are_printed_too() -> None:
    event = {**add(EventLog(BORN)).model_dump(mode="json"), "kind": "SomethingNew"}
    assert "SomethingNew" in line(event)


def test_kinds_fit_their_column() -> None:
    from nstarx.cli import events

    assert max(len(kind) for kind in EventKind) <= events.KIND_WIDTH
    assert "cluster" not in inspect.getsource(events)
