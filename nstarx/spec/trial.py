"""Trials: the runs of experiments."""

from typing import NamedTuple

from nstarx.spec.experiment import ExperimentSpec
from nstarx.spec.record import Record

PLACES = 1_000_000
"""Places of a group, among which its callers are spread evenly."""


class Trial(Record):
    """One run of an experiment. Starting it again makes another."""

    experiment: ExperimentSpec
    """What is compared, as it was at the start; weights and the longest time may have changed since."""
    started: float
    """In seconds of Unix time; tells the runs of an experiment apart."""
    stopped: float | None = None
    """When it ended; None while it runs."""
    changed: float
    """When anything of this record changed last."""
    weights: dict[str, float]
    """Arm to weight, in force: the configuration's, or a bandit's."""
    places: tuple[tuple[int, int], ...] = ()
    """The parts of its group that are its own, each from a place up to another that is another's."""
    decided: bool = False
    """Whether the verdict has been told."""
    skewed: bool = False
    """Whether it has been told that the split is broken."""

    @property
    def runs(self) -> bool:
        """Whether it assigns callers."""
        return self.stopped is None

    @property
    def salt(self) -> str:
        """What assignments are made from: callers fall anew at each start, and an outcome counts for its own run."""
        return f"{self.experiment.name}/{self.started:.3f}"


class Bound(NamedTuple):
    """What a split by experiment stands for."""

    experiment: ExperimentSpec
    trial: Trial | None
    """The latest run; None before the first."""

    @property
    def running(self) -> Trial | None:
        """The run that assigns callers, if one does."""
        return self.trial if self.trial and self.trial.runs else None

    @property
    def weights(self) -> dict[str, float]:
        """Version to weight, the control first, which has everything while nothing runs."""
        running, control = self.running, self.experiment.control
        others = [arm for arm in (running.weights if running else self.experiment.arms) if arm != control]
        given = running.weights if running else {control: 1.0}
        return {arm: given.get(arm, 0.0) for arm in (control, *others)}
