"""Decides which arm answers a request whose route looks at more than its address: by rules, and by sticky keys."""

from collections.abc import Callable, Sequence
from secrets import token_bytes
from typing import TYPE_CHECKING, NamedTuple

from nstarx.spec.split import SplitSpec
from nstarx.spec.trial import Trial
from router.arm import Arm
from router.assignment import compile_assignment
from router.cohort import compile_cohort
from router.exposures import Assignment, Exposures
from router.facts import Facts
from router.matching import Test
from router.split import turns
from router.sticky import ASSIGNMENT, COOKIE_BYTES, assignment, begun, issue, key_of

if TYPE_CHECKING:
    from router.journey import Journey

MOST_KNOWN, LONGEST_KNOWN = 4096, 64
"""Decisions about keys that are remembered, and bytes of such a key."""


class Decision(NamedTuple):
    """What answers a request, and why."""

    arm: Arm
    rule: str | None = None
    """The rule that decided; None is the route's own split."""
    key: bytes | None = None
    """What the request was assigned by; None when it was counted out."""
    lines: bytes = b""
    """Header lines of the answer: an id for the key, and a cookie that makes the client bring it next time."""
    assignment: Assignment | None = None
    """The request's part in an experiment, if it takes part in one."""


class Chooser:
    """Picks an arm of a split: by key where it is sticky, else by counting."""

    __slots__ = ("_assigned", "_begun", "_cookie", "_counted", "_find", "_known", "_rule", "arms", "split")

    def __init__(self, split: SplitSpec, arms: Sequence[Arm], salt: str, rule: str | None, seed: int) -> None:
        self.split = split
        self.arms = tuple(arms)
        self._rule = rule
        self._counted = turns([(arm, arm.weight) for arm in arms], seed).__next__
        self._begun = begun(salt)
        self._find = self._cookie = self._assigned = None
        self._known: dict[bytes, Decision] = {}
        """What was decided about keys before; it is the same each time, and callers come again."""
        if split.sticky is not None:
            self._find, self._cookie = key_of(split.sticky), split.sticky.cookie
            # A canary's arms are known by role: whoever tries one candidate tries the next one too.
            name: Callable[[Arm], str] = (lambda arm: arm.role) if split.canary else (lambda arm: arm.ref)
            self._assigned = compile_cohort([(arm, arm.weight) for arm in arms], salt.encode(), name)

    def __call__(self, facts: Facts) -> Decision:
        if self._find is None or self._assigned is None:
            return Decision(self._counted(), self._rule)
        key = self._find(facts)
        if key is None:
            if self._cookie is None:
                return Decision(self._counted(), self._rule)
            key, line = issue(self._cookie, token_bytes(COOKIE_BYTES))
            return self._decided(key, line)
        decision = self._known.get(key)
        if decision is None:
            decision = self._decided(key)
            if len(key) <= LONGEST_KNOWN:
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[key] = decision
        return decision

    def settled(self, facts: Facts) -> Decision | None:
        """The decision, if every request that says this of itself gets the same one."""
        return self(facts) if self._find is not None and self._find(facts) is not None else None

    def _decided(self, key: bytes, cookie: bytes = b"") -> Decision:
        assert self._assigned is not None
        lines = ASSIGNMENT % assignment(self._begun, key) + cookie
        return Decision(self._assigned(key), self._rule, key, lines)

    def key(self, facts: Facts) -> bytes | None:
        """What the request could be assigned by, if it has that."""
        return self._find(facts) if self._find else None

    def assigned(self, facts: Facts) -> Arm | None:
        """The arm that the request's key is tied to; None where it has none, and is counted out. Takes no turn."""
        key = self.key(facts)
        return self._assigned(key) if key is not None and self._assigned else None

    def about(self, facts: Facts) -> str | None:
        """A sentence about the experiment whose split it is, if it is one's."""
        return f"Experiment '{self.split.experiment}' is not running." if self.split.experiment else None


class TrialChooser(Chooser):
    """Picks an arm of an experiment that runs, by its own key."""

    __slots__ = ("_part", "_trial")

    def __init__(self, trial: Trial, split: SplitSpec, arms: Sequence[Arm], rule: str | None, seed: int) -> None:
        super().__init__(split, arms, trial.salt, rule, seed)
        self._trial = trial
        key = trial.experiment.key
        if key is not None:
            self._find, self._cookie = key_of(key), key.cookie
        self._part = compile_assignment(trial, arms, seed)

    def __call__(self, facts: Facts) -> Decision:
        arm, assignment, key, line = self._part(facts)
        return Decision(arm, self._rule, key, line, assignment)

    def assigned(self, facts: Facts) -> Arm | None:
        """Those without the key have the control, unless they are given one as a cookie, or the experiment has none."""
        if self._find is None or (self._cookie is not None and self.key(facts) is None):
            return None
        return self._part(facts)[0]

    def settled(self, facts: Facts) -> Decision | None:
        """None: each exposure is told, and shares of an experiment may move."""
        return None

    def about(self, facts: Facts) -> str:
        running, key = f"Experiment '{self._trial.experiment.name}' is running", self._trial.experiment.key
        if key is None:
            return f"{running}, and assigns each request by itself."
        if self.key(facts) is None:
            then = "the gateway issues one" if self._cookie else "the control answers, and is not counted"
            return f"{running}, but {key} is missing: {then}."
        takes_part = self._part(facts)[1] is not None
        return f"{running}, and this caller {'takes part' if takes_part else 'is kept out of it'}."


def chooser(split: SplitSpec, arms: Sequence[Arm], salt: str, rule: str | None, seed: int) -> Chooser:
    """What picks an arm of a split."""
    if split.trial:
        return TrialChooser(split.trial, split, arms, rule, seed)
    return Chooser(split, arms, salt, rule, seed)


def take_turn(journey: "Journey") -> bool:
    """The stage that chooses a version where the request has no say."""
    if journey.target is not None:
        journey.take(journey.target.next_arm())
    return True


class Guide:
    """A route's rules in order, and what decides where none matches."""

    __slots__ = ("_exposures", "counts", "default", "rules")

    def __init__(
        self,
        rules: Sequence[tuple[str, Test, Chooser]],
        default: Chooser,
        counts: dict[str, int],
        exposures: Exposures,
    ) -> None:
        """`counts` is where decisions by rules are counted, `exposures` where parts in experiments are."""
        self.rules = rules
        self.default = default
        self.counts = counts
        self._exposures = exposures

    def __call__(self, journey: "Journey") -> bool:
        """The stage that chooses a version."""
        facts = journey.facts
        if facts.decided_by is not self:
            # Rules and keys look at facts alone, and a client that repeats its head has the same ones again.
            facts.decided_by, facts.choose = self, self.matching(facts)
            facts.decision = facts.choose.settled(facts)
        arm, rule, journey.key, lines, part = facts.decision or facts.choose(facts)
        journey.rule = rule
        if lines:
            journey.marks += lines
        if rule is not None:
            self.counts[rule] = self.counts.get(rule, 0) + 1
            journey.marks += b"x-nstarx-rule: %b\r\n" % rule.encode()
        if part is not None:
            self._exposures.add(part)
            journey.marks += part.lines
        journey.take(arm)
        return True

    def matching(self, facts: Facts) -> Chooser:
        """The first rule that matches decides."""
        for _, test, choose in self.rules:
            if test(facts):
                return choose
        return self.default

    def decide(self, facts: Facts) -> Decision:
        """What answers a request that says this of itself."""
        return self.matching(facts)(facts)
