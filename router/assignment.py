"""Which requests take part in an experiment, and in which arm. The rules, for whoever must agree with the gateway:

`unit` and `compile_cohort` are those of `router.cohort`. The key is held out when its unit, with the salt
`holdout/EXPERIMENT`, is below 10,000 times the holdout in per cent. In a group, its unit with the salt `group/GROUP`
has to be among the run's places. Its arm is its cohort's with the salt `arm/EXPERIMENT/STARTED`, arms named by version.
The assignment id is `judging.experiment.assignment_of` of `EXPERIMENT/STARTED` and the key. STARTED is the start of the
run in seconds of Unix time with three decimals. A request without the experiment's key does not take part. Where the
experiment has no key, requests are counted out one by one, and each is an assignment of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from secrets import token_bytes, token_hex

from nstarx.spec.key import KeySpec
from nstarx.spec.trial import Trial
from router.arm import Arm
from router.cohort import UNITS_A_PERCENT, compile_cohort, unit
from router.exposures import Assignment, Terms
from router.facts import Facts
from router.split import turns
from router.sticky import ASSIGNMENT, COOKIE_BYTES, assignment, begun, issue, key_of

Part = tuple[Arm, Assignment | None, bytes | None, bytes]
"""The arm that answers, the assignment where the request takes part, its key, and a header line with a new cookie."""


def compile_assignment(trial: Trial, arms: Sequence[Arm], seed: int) -> Callable[[Facts], Part]:
    """What gives each request its part. `arms` have the weights in force, demotions taken into account."""
    tell = _telling(trial, arms)
    control = next(arm for arm in arms if arm.ref == trial.experiment.control)
    key = trial.experiment.key
    return _one_by_one(trial, arms, control, tell, seed) if key is None else _by_key(trial, key, arms, control, tell)


def _by_key(
    trial: Trial, spec: KeySpec, arms: Sequence[Arm], control: Arm, tell: Callable[[str, Arm], Assignment]
) -> Callable[[Facts], Part]:
    find, cookie = key_of(spec), spec.cookie
    is_out = _outside(trial)
    cohort = compile_cohort([(arm, arm.weight) for arm in arms], f"arm/{trial.salt}".encode(), lambda arm: arm.ref)
    start = begun(trial.salt)

    def choose(facts: Facts) -> Part:
        key, line = find(facts), b""
        if key is None:
            if cookie is None:
                return control, None, None, b""
            key, line = issue(cookie, token_bytes(COOKIE_BYTES))
        if is_out is not None and is_out(key):
            return control, None, key, line
        arm = cohort(key)
        return arm, tell(assignment(start, key).decode(), arm), key, line

    return choose


def _one_by_one(
    trial: Trial, arms: Sequence[Arm], control: Arm, tell: Callable[[str, Arm], Assignment], seed: int
) -> Callable[[Facts], Part]:
    next_arm = turns([(arm, arm.weight) for arm in arms], seed).__next__
    holdout, ids = trial.experiment.holdout_percent, _ids()
    takes_part = turns([(True, 100 - holdout), (False, holdout)], seed + 1).__next__

    def choose(facts: Facts) -> Part:
        if not takes_part():
            return control, None, None, b""
        arm = next_arm()
        return arm, tell(next(ids), arm), None, b""

    return choose


def _outside(trial: Trial) -> Callable[[bytes], bool] | None:
    """Whether a key is kept out, by the holdout or by its group; None where nobody is."""
    spec, group = trial.experiment, trial.experiment.group
    holdout = round(spec.holdout_percent * UNITS_A_PERCENT)
    own, shared = f"holdout/{spec.name}".encode(), f"group/{group.name}".encode() if group else b""

    def is_out(key: bytes) -> bool:
        if holdout and unit(key, own) < holdout:
            return True
        return bool(shared) and not _is_among(unit(key, shared), trial.places)

    return is_out if holdout or shared else None


def _is_among(place: int, parts: Sequence[tuple[int, int]]) -> bool:
    return any(begin <= place < end for begin, end in parts)


def _telling(trial: Trial, arms: Sequence[Arm]) -> Callable[[str, Arm], Assignment]:
    """What makes an assignment of an id and an arm."""
    name = trial.experiment.name
    terms = Terms(name, trial.started, {arm.ref: arm.weight for arm in arms if arm.weight > 0})
    heads = {arm.ref: f"x-nstarx-experiment: {name}\r\nx-nstarx-arm: {arm.ref}\r\n".encode() for arm in arms}

    def tell(id: str, arm: Arm) -> Assignment:
        return Assignment(id, arm.ref, terms, ASSIGNMENT % id.encode() + heads[arm.ref])

    return tell


def _ids() -> Iterator[str]:
    """Assignment ids of requests that nobody's key ties together."""
    prefix = token_hex(8)
    return (f"{prefix}-{number:x}" for number in count(1))
