"""What an experiment has seen: who was assigned to which arm, and what became of them.

Exposures and outcomes may come in any order and more than once. Memory is bounded: of assignments, outcome events and
outcomes that wait for their assignment, the `remembered` most recent are kept each. So an outcome repeated after that
many others counts again, and one that comes after its assignment was forgotten is lost, and counted as such. Callers
who come back after they were forgotten are not counted again beside the shares that are due: as each falls to the same
arm every time, a difference that is chance would grow to a mismatch.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeAlias

from judging.callers import Callers
from judging.moments import Moments
from judging.ratio import Ratio
from nstarx.spec.experiment import OutcomeRecord

REMEMBERED = 100_000
Event: TypeAlias = tuple[str, str, str]
"""Assignment, metric and event id: what makes an outcome the same outcome."""


class Recording(StrEnum):
    """What became of a reported outcome."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    """It was reported before; nothing changed."""
    WAITING = "waiting"
    """Its assignment is not known yet; it counts when that comes."""


def assignment_of(experiment: str, key: str | bytes) -> str:
    """The assignment id of a caller's key: the same at every gateway, and it doesn't tell the key."""
    encoded = key if isinstance(key, bytes) else key.encode()
    return hashlib.blake2b(b"%b\0%b" % (experiment.encode(), encoded), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Arm:
    """Sufficient statistics of every metric in one arm. Adding two is as if all had been observed in one place."""

    metrics: Mapping[str, Moments] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> Moments:
        return self.metrics.get(metric, Moments())

    def observed(self, metric: str, value: float) -> "Arm":
        return Arm({**self.metrics, metric: self[metric].observed(value)})

    def __add__(self, other: "Arm") -> "Arm":
        return Arm({metric: self[metric] + other[metric] for metric in sorted({*self.metrics, *other.metrics})})

    def to_json(self) -> dict[str, Any]:
        return {metric: moments.to_json() for metric, moments in self.metrics.items()}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        return cls({metric: Moments.from_json(moments) for metric, moments in document.items()})


@dataclass(slots=True)
class Experiment:
    """The state of one running experiment; `judging.winner.result` reads it."""

    name: str
    started_s: float
    remembered: int = REMEMBERED
    returning: bool = True
    """Whether callers come back; False where every request is an assignment of its own."""
    arms: dict[str, Arm] = field(default_factory=dict)
    ratio: Ratio = field(default_factory=Ratio)
    lost: int = 0
    """Outcomes given up because their assignment never came."""
    _counted: Callers = field(default_factory=Callers)
    _arm_of: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _events: OrderedDict[Event, None] = field(default_factory=OrderedDict)
    _waiting: OrderedDict[Event, float] = field(default_factory=OrderedDict)
    _events_of: dict[str, list[Event]] = field(default_factory=dict)

    def expose(self, exposures: Mapping[str, str], weights: Mapping[str, float]) -> None:
        """Assignment id to arm, all assigned while `weights` were in force. An assignment keeps its first arm."""
        new = {assignment: arm for assignment, arm in exposures.items() if not self._is_known(assignment)}
        self._arm_of.update(new)
        first = Counter(arm for assignment, arm in new.items() if not self.returning or self._counted.add(assignment))
        if first:
            self.ratio = self.ratio.counted(first, weights)
        for assignment, arm in new.items():
            for event in self._events_of.pop(assignment, ()):
                self._count(arm, event[1], self._waiting.pop(event))
        _forget(self._arm_of, self.remembered)

    def record(self, outcome: OutcomeRecord) -> Recording:
        """Count an outcome once. `ExperimentSpec.check` has said that its metric and value are the experiment's."""
        assignment = outcome.assignment or assignment_of(self.name, outcome.key or "")
        event = (assignment, outcome.metric, outcome.event or "")
        if event in self._events or event in self._waiting:
            return Recording.DUPLICATE
        self._events[event] = None
        _forget(self._events, self.remembered)
        return self._join(event, outcome.value)

    def _join(self, event: Event, value: float) -> Recording:
        arm = self._arm_of.get(event[0])
        if arm is None:
            self._wait(event, value)
            return Recording.WAITING
        self._count(arm, event[1], value)
        return Recording.COUNTED

    def _count(self, arm: str, metric: str, value: float) -> None:
        self.arms[arm] = self.arms.get(arm, Arm()).observed(metric, value)

    def _is_known(self, assignment: str) -> bool:
        """Callers who come back are remembered longest."""
        known = assignment in self._arm_of
        if known:
            self._arm_of.move_to_end(assignment)
        return known

    def _wait(self, event: Event, value: float) -> None:
        self._waiting[event] = value
        self._events_of.setdefault(event[0], []).append(event)
        for given_up in _forget(self._waiting, self.remembered):
            self.lost += 1
            self._events_of[given_up[0]].remove(given_up)
            if not self._events_of[given_up[0]]:
                del self._events_of[given_up[0]]

    @property
    def waiting(self) -> int:
        """Outcomes whose assignment is not known yet."""
        return len(self._waiting)

    def to_json(self) -> dict[str, Any]:
        """Everything, for a restart."""
        return {
            "name": self.name,
            "started_s": self.started_s,
            "remembered": self.remembered,
            "returning": self.returning,
            "arms": {name: arm.to_json() for name, arm in self.arms.items()},
            "ratio": self.ratio.to_json(),
            "lost": self.lost,
            "counted": self._counted.to_json(),
            "assignments": list(self._arm_of.items()),
            "events": list(self._events),
            "waiting": list(self._waiting.items()),
        }

    @classmethod
    def from_json(cls, document: Any) -> Self:
        restored = cls(*(document[name] for name in ("name", "started_s", "remembered", "returning")))
        restored.lost = document["lost"]
        restored.arms = {name: Arm.from_json(arm) for name, arm in document["arms"].items()}
        restored.ratio = Ratio.from_json(document["ratio"])
        restored._counted = Callers.from_json(document["counted"])
        restored._arm_of.update((assignment, arm) for assignment, arm in document["assignments"])
        restored._events.update((_event(event), None) for event in document["events"])
        for event, value in document["waiting"]:
            restored._wait(_event(event), value)
        return restored


def _event(document: Any) -> Event:
    assignment, metric, event = document
    return assignment, metric, event


def _forget(memory: OrderedDict[Any, Any], limit: int) -> list[Any]:
    """Drop the oldest until `limit` are left; what was dropped."""
    return [memory.popitem(last=False)[0] for _ in range(len(memory) - limit)]
