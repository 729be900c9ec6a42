"""What a judge may say, as records with the numbers that it rests on and a sentence that a person can check."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from nstarx.spec.record import Record

Rule = Literal[
    "consecutive_failures",
    "max_timeout_rate",
    "max_invalid_rate",
    "max_error_rate",
    "min_effect",
    "max_p99_ms",
    "max_p99_ratio",
]
"""A rule has the name of the setting that a version is held to."""


class Figures(Record):
    """What became of a version's calls."""

    version: str
    calls: int
    failures: int
    timeouts: int = 0
    """Among the failures, as are the invalid outputs."""
    invalid: int = 0
    p99_ms: float | None = None

    @property
    def error_rate(self) -> float:
        return self.failures / self.calls if self.calls else 0.0


class Evidence(Record):
    """Why a version is to be demoted."""

    rule: Rule
    at: float
    """When it was judged, in seconds on the judge's clock."""
    window_s: float
    """How far back the counts go: to the failure that the suspicion began with, or over the latency's window."""
    accused: Figures
    stable: Figures | None = None
    """The stable version over the same time."""
    statistic: float
    """Rates: what the bets on the version's being at fault have become (judging.sequential). Latency: the 99th
    percentile in milliseconds that is exceeded beyond doubt."""
    threshold: float
    """What the statistic had to reach."""
    limit: float | None = None
    """The error rate or latency (ms) that was borne, where it is one number."""
    first_failing: tuple[str, ...] = Field(default=(), max_length=10, strict=False)
    """Request ids of the first failed calls."""
    sentence: str


class Keep(Record):
    """Calls enough, and nothing proven against the version."""

    verdict: Literal["keep"] = "keep"
    suspicion: float
    """How far the strongest evidence is on its way to being enough, from 0 to 1, on a logarithmic scale."""
    suspected_of: Rule | None = None
    """The rule with that evidence."""
    window_s: float
    calls: int
    failures: int
    sentence: str


class Demote(Record):
    """The version is to be taken out of traffic."""

    verdict: Literal["demote"] = "demote"
    evidence: Evidence

    @property
    def sentence(self) -> str:
        return self.evidence.sentence


class NotEnoughData(Record):
    """Too few calls to say anything. That is not success."""

    verdict: Literal["not_enough_data"] = "not_enough_data"
    window_s: float
    calls: int
    wanted: int
    sentence: str


Verdict = Annotated[Keep | Demote | NotEnoughData, Field(discriminator="verdict")]
VERDICT: TypeAdapter[Keep | Demote | NotEnoughData] = TypeAdapter(Verdict)
"""Reads a verdict back from JSON: `VERDICT.validate_json(verdict.model_dump_json())`."""
