"""Everything that a judge looks at, as one value."""

from dataclasses import dataclass
from typing import NamedTuple, Self

from judging.sequential import Seen, Trail
from judging.windows import NO_TIME, Failing, Window, Windows


class Span(NamedTuple):
    """A stretch of time, and what two versions did in it."""

    accused: Window
    stable: Window
    halves: tuple[Window, Window]
    """The accused version's, older and newer half."""

    @classmethod
    def of(cls, accused: Windows, stable: Windows, seconds: float, now: float) -> Self:
        """The last so many seconds."""
        middle = now - seconds / 2
        halves = accused.between(now - seconds, middle), accused.between(middle, now)
        return cls(accused.last(seconds, now), stable.last(seconds, now), halves)


@dataclass(frozen=True, slots=True)
class Readings:
    """What is known of a version by now."""

    version: str
    stable: str | None
    """The version that it is compared with, and that would take its place."""
    trail: Trail
    """The evidence as of the last failure."""
    seen: Seen
    """The counts by now."""
    failing: tuple[Failing, ...] = ()
    """Failed calls, oldest first; the newest that are kept."""
    recent: Window = NO_TIME
    """What the version did over `interval_s`, or as much longer as it takes to have calls enough."""
    spans: tuple[Span, ...] = ()
    """The same time, and all of the past that is kept, for latency. A gateway's own watch has none."""
    fresh: int = 0
    """Calls since the last judgement: what this one may use up of the false alarms that are borne."""
