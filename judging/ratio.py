"""Sample-ratio mismatch: do the arms get the shares of assignments that they should? If not, nothing else counts.

Lindon & Malek 2022, "Anytime-valid inference for multinomial count data", NeurIPS: the Bayes factor of a
Dirichlet-multinomial against the declared shares is a martingale when the shares are kept, so the chance that it ever
reaches 1/alpha is at most alpha, however often it is looked at.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

ALPHA = 0.001
"""Chance of an alarm over the whole run of an experiment whose shares are kept."""
CONCENTRATION = 1000.0
"""Pseudo-assignments that hold the prior near the declared shares: most mismatches are of a few per cent."""
IMPOSSIBLE = 700.0
"""Log evidence of an assignment to an arm without weight; finite, so that it can be stored."""


@dataclass(frozen=True, slots=True)
class RatioVerdict:
    """Whether the shares are kept, with the log of the evidence against it and a sentence."""

    alarm: bool
    log_evidence: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """Assignments per arm beside those that were due, and the evidence that they differ."""

    assigned: Mapping[str, int] = field(default_factory=dict)
    due: Mapping[str, float] = field(default_factory=dict)
    log_evidence: float = 0.0
    peak: float = 0.0
    """The most evidence there ever was: an alarm stays, as what was measured meanwhile stays in the sums."""

    def counted(self, assigned: Mapping[str, int], weights: Mapping[str, float]) -> Self:
        """With assignments that were made while `weights` were in force.

        With the same weights throughout, the batches' Bayes factors multiply to that of all counts at once. When
        weights change, the prior of the next batch carries over how much more or less than due each arm has got.
        """
        n, total = sum(assigned.values()), sum(weights.values())
        shares = {arm: weight / total for arm, weight in weights.items() if weight > 0}
        evidence = self.log_evidence + self._log_bayes_factor(assigned, shares)
        arms = {*self.due, *assigned, *shares}
        return type(self)(
            {arm: self.assigned.get(arm, 0) + assigned.get(arm, 0) for arm in sorted(arms)},
            {arm: self.due.get(arm, 0.0) + n * shares.get(arm, 0.0) for arm in sorted(arms)},
            evidence,
            max(self.peak, evidence),
        )

    def _log_bayes_factor(self, assigned: Mapping[str, int], shares: Mapping[str, float]) -> float:
        if any(count and arm not in shares for arm, count in assigned.items()):
            return IMPOSSIBLE
        prior = self._prior(shares)
        whole, n = sum(prior.values()), sum(assigned.values())
        found = math.lgamma(whole) - math.lgamma(whole + n)
        for arm, count in assigned.items():
            if count:
                found += math.lgamma(prior[arm] + count) - math.lgamma(prior[arm]) - count * math.log(shares[arm])
        return found

    def _prior(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Dirichlet parameters: the shares, tilted by what each arm got so far beside what was due."""
        tilted = {
            arm: share * (CONCENTRATION * share + self.assigned.get(arm, 0))
            / (CONCENTRATION * share + self.due.get(arm, 0.0))
            for arm, share in shares.items()
        }  # fmt: skip
        weight = (CONCENTRATION + sum(self.assigned.values())) / sum(tilted.values())
        return {arm: weight * share for arm, share in tilted.items()}

    def verdict(self, alpha: float = ALPHA) -> RatioVerdict:
        """An alarm once the evidence has ever reached 1/alpha."""
        alarm = self.peak >= math.log(1 / alpha)
        return RatioVerdict(alarm, self.peak, self._mismatch() if alarm else "the arms get the shares that are due")

    def _mismatch(self) -> str:
        arm = max(self.assigned, key=lambda arm: abs(self.assigned[arm] - self.due[arm]))
        return (
            f"the split is broken: '{arm}' got {self.assigned[arm]} of {sum(self.assigned.values())} assignments where "
            f"{self.due[arm]:.0f} were due; find what loses or repeats them, then start the experiment anew"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "assigned": dict(self.assigned),
            "due": dict(self.due),
            "log_evidence": self.log_evidence,
            "peak": self.peak,
        }

    @classmethod
    def from_json(cls, document: Any) -> Self:
        return cls(**document)
