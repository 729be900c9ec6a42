"""Which version a request would get, and why: the decision of the hot path, told step by step and without a turn."""

from typing import Any
from urllib.parse import urlencode

from pydantic import Field

from judging.standing import Standing, State
from nstarx.errors import InvalidRequest
from nstarx.spec.key import KeySpec
from nstarx.spec.record import Record
from nstarx.spec.route import RouteSpec, RuleSpec
from nstarx.spec.version import Name, Semver
from router.arm import Arm
from router.facts import Facts
from router.guide import Chooser
from router.matching import explain
from router.table import Address, Target, rule_salt


class Question(Record):
    """A request as far as routes look at it."""

    model: Name
    version: Semver | None = None
    """A version in the path."""
    path_prefix: str = ""
    host: str = ""
    """Value of the header Host."""
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    cookies: dict[str, str] = {}
    client_address: str = ""
    caller: str | None = None
    """Name of the caller, as access control has verified it; so with the claims."""
    claims: dict[str, Any] = {}

    @property
    def address(self) -> Address:
        return Address(self.model, self.version, self.path_prefix, self.host)

    def facts(self) -> Facts:
        """What matching looks at. Raises InvalidRequest for what no header can hold."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        query = f"?{urlencode(self.query)}" if self.query else ""
        try:
            raw = {name.encode("latin-1"): value.strip().encode("latin-1") for name, value in headers.items()}
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"headers: {error.object!r} holds characters that no header can") from None
        return Facts(raw, self.address.path + query.encode(), self.client_address, self.claims, self.caller)


class Finding(Record):
    """One condition of a rule."""

    holds: bool
    sentence: str


class RuleFinding(Record):
    """One rule of the route, and whether the request matches it."""

    rule: str
    enabled: bool
    matches: bool
    """All conditions hold. A rule that is off matches nothing."""
    findings: tuple[Finding, ...]


class Chance(Record):
    """One version of the split that decides."""

    version: str
    role: str
    percent: float
    """Of requests like this one: 100 or 0 where a key assigns them."""
    state: State
    """Where the version stands."""
    replicas: int
    """With a lane to this gateway."""


class Explanation(Record):
    """What a request would get."""

    route: str
    path: str
    rules: tuple[RuleFinding, ...] = ()
    decided_by: str | None = None
    """The rule whose split decides; null is the route's own."""
    assigned_by: str | None = None
    """The key that ties the request to its version; null where requests are counted out."""
    versions: tuple[Chance, ...] = Field(min_length=1)
    sentence: str


def explained(target: Target, question: Question, standings: dict[str, Standing]) -> Explanation:
    """What a request to this target would get. `standings` are the route's."""
    route, facts = target.route, question.facts()
    rules = tuple(_rule(route, rule, facts) for rule in route.rules)
    decided_by = next((rule.rule for rule in rules if rule.matches), None)
    choose = _chooser(target, decided_by)
    sticky, assigned = choose.split.key, choose.assigned(facts)
    versions = tuple(_chances(choose, assigned.ref if assigned else None, standings))
    why = "The path names the version." if question.version else _why(route, rules, decided_by, choose)
    about = [sentence] if (sentence := choose.about(facts)) else []
    is_tied = assigned is not None and choose.key(facts) is not None
    stand_in = target.live_arm()
    return Explanation(
        route=route.name,
        path=question.address.path.decode(),
        rules=rules,
        decided_by=decided_by,
        assigned_by=str(sticky) if is_tied else None,
        versions=versions,
        sentence=" ".join(
            [why, *about, *_lost(versions), _answer(versions, sticky, is_tied), *_absent(versions, stand_in)]
        ),
    )


def _rule(route: RouteSpec, rule: RuleSpec, facts: Facts) -> RuleFinding:
    findings = tuple(
        Finding(holds=f.holds, sentence=f.sentence) for f in explain(rule.match, rule_salt(route, rule), facts)
    )
    matches = rule.enabled and all(finding.holds for finding in findings)
    return RuleFinding(rule=rule.name, enabled=rule.enabled, matches=matches, findings=findings)


def _chooser(target: Target, rule: str | None) -> Chooser:
    return next((choose for name, _, choose in target.guide.rules if name == rule), target.guide.default)


def _chances(choose: Chooser, assigned: str | None, standings: dict[str, Standing]) -> list[Chance]:
    total = sum(arm.weight for arm in choose.arms)
    return [
        Chance(
            version=arm.ref,
            role=arm.role,
            percent=round(100 * arm.weight / total, 4) if assigned is None else 100.0 * (arm.ref == assigned),
            state=standings.get(arm.ref, Standing()).state,
            replicas=len(arm.backend.lanes),
        )
        for arm in choose.arms
    ]


def _why(route: RouteSpec, rules: tuple[RuleFinding, ...], decided_by: str | None, choose: Chooser) -> str:
    if decided_by is None:
        return "No rule matches: the route's own split decides." if rules else "The route's split decides."
    first = f"Rule '{decided_by}' is the first that matches"
    if choose.split is route.split:
        return f"{first}, but every version of its split is demoted: the route's own split decides."
    return f"{first}: its split decides."


def _lost(versions: tuple[Chance, ...]) -> list[str]:
    """What versions have lost by how they stand."""
    lost = [f"{c.version} is {_state(c.state)}" for c in versions if c.state not in ("healthy", "suspected")]
    return [f"{', '.join(lost)}."] if lost else []


def _absent(versions: tuple[Chance, ...], stand_in: Arm | None) -> list[str]:
    """What becomes of requests for versions that have no replica."""
    absent = [chance.version for chance in versions if chance.percent and not chance.replicas]
    if not absent:
        return []
    then = f"{stand_in.ref} answers in its place" if stand_in else "nothing else of the route can answer either"
    return [f"{', '.join(absent)} has no replica here; {then}."]


def _state(state: State) -> str:
    return "on probation" if state == "probation" else state.replace("_", " ")


def _answer(versions: tuple[Chance, ...], sticky: KeySpec | None, assigned: bool) -> str:
    certain = next((chance.version for chance in versions if chance.percent == 100), None)
    if certain:
        return f"By {sticky} this caller gets {certain} each time." if assigned else f"{certain} answers."
    shares = ", ".join(f"{chance.version} {chance.percent:g} %" for chance in versions)
    if sticky is None:
        return f"Requests are counted out: {shares}."
    then = "the gateway issues one with the first answer" if sticky.cookie else "requests are counted out"
    return f"{_begun(str(sticky))} is missing; {then}: {shares}."


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]
