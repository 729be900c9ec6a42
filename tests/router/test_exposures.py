"""Assignments wait in the gateway until the coordinator has them."""

from typing import Any

import pytest

from router import exposures as module
from router.exposures import Assignment, Exposures, Terms

HALVES = Terms("label", 1.0, {"a": 1.0, "b": 1.0})
BIASED = Terms("label", 1.0, {"a": 9.0, "b": 1.0})


def waiting(*assigned: tuple[str, str], terms: Terms = HALVES) -> Exposures:
    exposures = Exposures(born=5.0)
    add(exposures, *assigned, terms=terms)
    return exposures


def add(exposures: Exposures, *assigned: tuple[str, str], terms: Terms = HALVES) -> None:
    for id, arm in assigned:
        exposures.add(Assignment(id, arm, terms, b""))


def shown(batch: Any) -> list[Any]:
    return [(part.weights, dict(part.assignments)) for part in batch.exposed]


def test_nothing_new_is_nothing_to_hand_in() -> None:
    assert Exposures().oldest() is None


def test_a_batch_stays_the_same_until_it_is_acknowledged() -> None:
    exposures = waiting(("u1", "a"), ("u2", "b"), ("u1", "a"))
    first = exposures.oldest()
    add(exposures, ("u3", "a"))
    assert exposures.oldest() == first
    assert first
    assert shown(first) == [({"a": 1.0, "b": 1.0}, {"u1": "a", "u2": "b"})]
    exposures.acknowledged(first)
    second = exposures.oldest()
    assert second
    assert second.number == first.number + 1
    assert shown(second) == [({"a": 1.0, "b": 1.0}, {"u3": "a"})]
    exposures.acknowledged(second)
    assert exposures.oldest() is None


def test_numbers_rise_from_life_to_life() -> None:
    early, late = Exposures(born=5.0), Exposures(born=6.0)
    for exposures in (early, late):
        add(exposures, ("u1", "a"))
    first, second = early.oldest(), late.oldest()
    assert first
    assert second
    assert first.number < second.number


def test_assignments_are_told_with_the_weights_they_were_made_by() -> None:
    exposures = waiting(("u1", "a"))
    add(exposures, ("u2", "a"), terms=BIASED)
    batch = exposures.oldest()
    assert shown(batch) == [({"a": 1.0, "b": 1.0}, {"u1": "a"}), ({"a": 9.0, "b": 1.0}, {"u2": "a"})]


def test_requests_are_counted_and_assignments_told_once() -> None:
    exposures = waiting(("u1", "a"), ("u1", "a"), ("u2", "b"))
    assert exposures.requests == {"label": {"a": 2, "b": 1}}


def test_what_is_too_much_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    exposures = waiting(("u1", "a"), ("u2", "b"), ("u3", "a"))
    batch = exposures.oldest()
    assert batch
    assert (batch.size, exposures.dropped) == (2, 1)
    add(exposures, ("u4", "a"))
    assert exposures.dropped == 2
    exposures.acknowledged(batch)
    add(exposures, ("u5", "a"))
    assert exposures.dropped == 2
    assert shown(exposures.oldest()) == [({"a": 1.0, "b": 1.0}, {"u5": "a"})]
