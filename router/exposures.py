"""Exposures: who was assigned to which arm, kept by the gateway until the coordinator has it on disk."""

import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from cluster.experiments import Exposed

MOST = 200_000
"""Assignments that a gateway keeps for the coordinator; more are dropped, whatever their arm, and counted."""


class Terms:
    """A run of an experiment while the same weights are in force. Two are never equal, which makes them quick keys."""

    __slots__ = ("experiment", "started", "weights")

    def __init__(self, experiment: str, started: float, weights: Mapping[str, float]) -> None:
        self.experiment = experiment
        self.started = started
        self.weights = weights


class Assignment(NamedTuple):
    """One request's part in an experiment."""

    id: str
    arm: str
    terms: Terms
    lines: bytes
    """Header lines that tell the client."""


class Batch(NamedTuple):
    """What is handed in at once. Numbers rise, also from one life of a gateway to the next."""

    number: int
    exposed: tuple[Exposed, ...]
    size: int


class Exposures:
    """In order, and each until it is acknowledged."""

    def __init__(self, born: float | None = None) -> None:
        """`born` is Unix time."""
        self._next = int((time.time() if born is None else born) * 1000)
        self._pending: dict[Terms, dict[str, str]] = {}
        self._batches: deque[Batch] = deque()
        self._size = 0
        self.requests: dict[str, dict[str, int]] = {}
        """Experiment to arm to the requests that took part."""
        self.dropped = 0

    def add(self, assignment: Assignment) -> None:
        """A request takes part."""
        id, arm, terms, _ = assignment
        counts = self.requests.get(terms.experiment)
        if counts is None:
            counts = self.requests[terms.experiment] = {}
        counts[arm] = counts.get(arm, 0) + 1
        pending = self._pending.get(terms)
        if pending is None:
            pending = self._pending[terms] = {}
        if id in pending:
            return
        if self._size >= MOST:
            self.dropped += 1
            return
        pending[id] = arm
        self._size += 1

    def oldest(self) -> Batch | None:
        """What is to be handed in next; the same one again until it is acknowledged."""
        if not self._batches and self._pending:
            exposed = tuple(
                Exposed(terms.experiment, terms.started, terms.weights, assignments)
                for terms, assignments in self._pending.items()
                if assignments
            )
            self._pending = {}
            if exposed:
                self._batches.append(Batch(self._next, exposed, sum(len(part.assignments) for part in exposed)))
                self._next += 1
        return self._batches[0] if self._batches else None

    def acknowledged(self, batch: Batch) -> None:
        """The coordinator has it on disk."""
        if self._batches and self._batches[0].number == batch.number:
            self._batches.popleft()
            self._size -= batch.size
