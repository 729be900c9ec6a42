"""What gateways and people tell and hear of experiments, and what can be wrong with it."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from nstarx.errors import NStarXError
from nstarx.spec.experiment import ExperimentSpec
from nstarx.spec.record import Record

State: TypeAlias = Literal["idle", "running", "stopped", "removed"]


class ExperimentNotFound(NStarXError):
    status, code = 404, "experiment_not_found"

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        names = ", ".join(sorted(known))
        super().__init__(
            f"there is no experiment '{name}'; " + (f"there are: {names}" if names else "the routes document has none")
        )


class ExperimentConflict(NStarXError):
    """An experiment is not in the state that was expected."""

    status, code = 409, "experiment_conflict"


class Exposed(NamedTuple):
    """Assignments that a gateway made while the same weights were in force."""

    experiment: str
    started: float
    """The run that they are of."""
    weights: Mapping[str, float]
    """Arm to weight, demotions taken into account; arms without weight may be left out."""
    assignments: Mapping[str, str]
    """Assignment id to arm."""


class ExperimentStatus(Record):
    """An experiment, how it stands and what it says so far."""

    name: str
    state: State
    """Idle: never started. Removed: no longer in the routes document; what it says can still be read."""
    experiment: ExperimentSpec
    """As it runs or ran; as configured before the first start."""
    routes: tuple[str, ...] = ()
    """Those that name it."""
    started: float | None = None
    """In seconds of Unix time, as the next."""
    stopped: float | None = None
    shares: dict[str, float] = {}
    """Arm to its part of the callers now, before demotions; 1 in all."""
    assigned: int = 0
    """Assignments that are counted, of all arms."""
    outcomes: int = 0
    """Outcomes of the primary metric that are counted."""
    waiting: int = 0
    """Outcomes whose assignment has not come yet."""
    lost: int = 0
    """Outcomes that waited in vain."""
    result: dict[str, Any] | None = None
    """The verdict and its numbers (`judging.winner.Result`), at most a second old; None before the first start."""
