"""Decides which arm answers a request whose route looks at more than its address: by rules, and by sticky keys."""

from collections.abc import Callable, Sequence
from secrets import token_bytes
from typing import TYPE_CHECKING, NamedTuple

from nstarx.spec.split import SplitSpec
from router.arm import Arm
from router.cohort import compile_cohort
from router.facts import Facts
from router.matching import Test
from router.split import turns
from router.sticky import issue, key_of

if TYPE_CHECKING:
    from router.journey import Journey

COOKIE_BYTES = 16
"""Random bytes in a cookie that the gateway issues: enough to tell all clients apart."""


class Decision(NamedTuple):
    """What answers a request, and why."""

    arm: Arm
    rule: str | None = None
    """The rule that decided; None is the route's own split."""
    key: bytes | None = None
    """What the request was assigned by; None when it was counted out."""
    cookie: bytes = b""
    """A header line that makes the client bring its key next time."""


Choose = Callable[[Facts], Decision]


class Guide:
    """A route's rules in order, and what decides where none matches."""

    __slots__ = ("_default", "_rules")

    def __init__(self, rules: Sequence[tuple[str, Test, Choose]], default: Choose) -> None:
        self._rules = rules
        self._default = default

    def __call__(self, journey: "Journey") -> bool:
        """The stage that chooses a version."""
        decision = self.decide(journey.facts)
        journey.key, journey.rule = decision.key, decision.rule
        journey.marks += decision.cookie
        if decision.rule is not None:
            journey.marks += b"x-nstarx-rule: %b\r\n" % decision.rule.encode()
        journey.take(decision.arm)
        return True

    def decide(self, facts: Facts) -> Decision:
        """The first rule that matches decides."""
        for _, test, choose in self._rules:
            if test(facts):
                return choose(facts)
        return self._default(facts)


def chooser(split: SplitSpec, arms: Sequence[Arm], salt: str, rule: str | None, seed: int) -> Choose:
    """What picks an arm of a split: by key where it is sticky, else by counting."""
    counted = turns([(arm, arm.weight) for arm in arms], seed).__next__
    if split.sticky is None:
        return lambda facts: Decision(counted(), rule)
    find, cookie = key_of(split.sticky), split.sticky.cookie
    # A canary's arms are known by role: whoever tries one candidate tries the next one too.
    name: Callable[[Arm], str] = (lambda arm: arm.role) if split.canary else (lambda arm: arm.ref)
    assigned = compile_cohort([(arm, arm.weight) for arm in arms], salt.encode(), name)

    def choose(facts: Facts) -> Decision:
        key, line = find(facts), b""
        if key is None:
            if cookie is None:
                return Decision(counted(), rule)
            key, line = issue(cookie, token_bytes(COOKIE_BYTES))
        return Decision(assigned(key), rule, key, line)

    return choose
