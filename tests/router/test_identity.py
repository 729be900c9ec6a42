"""Who calls, as a trusted proxy says it, and as others would like to."""

import contextlib
from base64 import urlsafe_b64encode
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nstarx.errors import InvalidConfiguration, InvalidRequest
from nstarx.spec.gateway import GatewaySpec
from nstarx.spec.identity import IdentitySpec
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument
from router.facts import Facts
from router.gateway import Gateway
from router.identity import LONGEST_CLAIMS, Identity, read_claims
from tests.in_process import DataPlaneInProcess
from tests.router.wire import IRIS, Wire, iris, post, request

PROXY, STRANGER = "127.0.0.1", "203.0.113.9"
CLAIMS = {"sub": "ann", "tenant": {"id": 7}, "roles": ["admin", "qa"]}
OLD, NEW = "iris@1.0.0", "iris@1.1.0"
RULES = [
    {"name": "ann", "match": {"caller": ["ann"]}, "split": {"weighted": {NEW: 1}}},
    {"name": "seven", "match": {"claims": {"tenant.id": "7"}}, "split": {"weighted": {NEW: 1}}},
]


def encoded(claims: Any) -> str:
    return urlsafe_b64encode(orjson.dumps(claims)).rstrip(b"=").decode()


def told(address: str = PROXY, spec: dict[str, Any] | None = None, **headers: str) -> Facts:
    identity = Identity(IdentitySpec.model_validate(spec or {"caller_header": "x-caller", "claims_header": "x-claims"}))
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    facts = Facts(given, b"/", address)
    if (error := identity.tell(facts)) is not None:
        raise error
    return facts


def test_caller_and_claims_are_those_that_the_proxy_says() -> None:
    facts = told(x_caller="bob", x_claims=encoded(CLAIMS))
    assert (facts.caller, facts.claims) == ("bob", CLAIMS)


def test_caller_is_the_subject_where_nothing_else_names_one() -> None:
    assert told(x_claims=encoded(CLAIMS)).caller == "ann"
    assert told(x_claims=encoded({"sub": 7})).caller is None
    assert told().caller is None


def test_what_strangers_send_is_passed_over() -> None:
    facts = told(STRANGER, x_caller="root", x_claims=encoded(CLAIMS))
    assert (facts.caller, dict(facts.claims)) == (None, {})
    assert told("", x_caller="root").caller is None


def test_padding_may_be_there_or_not() -> None:
    for claims in ({"a": 1}, {"ab": 1}, {"abc": 1}):
        padded = urlsafe_b64encode(orjson.dumps(claims))
        assert read_claims(padded) == read_claims(padded.rstrip(b"=")) == claims


@pytest.mark.parametrize(
    "claims", ["", "=", "a", "????", "e30.e30", encoded([1]), encoded("x"), encoded(None), "e" * (LONGEST_CLAIMS + 1)]
)
def test_claims_that_are_none_are_refused(claims: str) -> None:
    with pytest.raises(InvalidRequest, match="claims must be a JSON object in base64url"):
        read_claims(claims.encode())


@pytest.mark.parametrize("caller", ["a\tb", "a" * 257, "a\u202eb", " "])
def test_names_that_nobody_can_have_are_refused(caller: str) -> None:
    if caller.strip():
        with pytest.raises(InvalidRequest, match="printable"):
            told(x_caller=caller)


@given(st.binary(max_size=200))
def test_no_header_breaks_the_reader(header: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(read_claims(header), dict)


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ({}, "caller_header, claims_header, or both"),
        ({"caller_header": "X-Who", "claims_header": "x-who"}, "another header"),
        ({"caller_header": "x who"}, "is not a header"),
        ({"caller_header": "x-who", "trusted_proxies": ["all"]}, "write a network like"),
        ({"caller_header": "x-who", "trusted_proxies": []}, "trusted_proxies"),
    ],
)
def test_settings_that_would_open_a_door_are_refused(identity: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        parse(GatewaySpec, {"identity": identity}, "gateway")


@pytest.fixture
def gateway(plane: DataPlaneInProcess) -> Gateway:
    for ref in (OLD, NEW):
        plane.replica(ref)
    document = {"routes": [{"model": "iris", "split": {"weighted": {OLD: 1}}, "rules": RULES}]}
    identity = {"caller_header": "x-caller", "claims_header": "x-claims"}
    return plane.gateway(parse(RoutesDocument, document, "routes").routes, identity=identity)


def rule_of(wire: Wire, *headers: str) -> str | None:
    return wire.send(post(IRIS, iris(), *headers)).answer().headers.get("x-nstarx-rule")


def test_rules_know_who_calls(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        for _ in range(2):  # the second one's head is known
            assert rule_of(wire, "X-Caller: ann") == "ann"
            assert rule_of(wire, f"X-Claims: {encoded({'tenant': {'id': 7}})}") == "seven"
            assert rule_of(wire, f"X-Claims: {encoded({'tenant': {'id': 8}})}") is None
            assert rule_of(wire) is None


def test_wrong_claims_are_answered_in_a_sentence_and_the_connection_stays(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        for _ in range(2):
            answer = wire.send(post(IRIS, iris(), "X-Claims: [")).answer()
            assert (answer.status, "base64url" in answer.error) == (400, True)
            assert wire.is_usable()


def test_header_that_is_there_twice_is_refused(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        for _ in range(2):
            answer = wire.send(post(IRIS, iris(), "X-Caller: root", "x-caller: ann")).answer()
            assert (answer.status, "more than once" in answer.error) == (400, True)


def test_refused_caller_is_told_before_it_sends_its_body(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        head = request("POST", IRIS, "Content-Length: 5", "Expect: 100-continue", "X-Claims: [")
        assert wire.send(head).answer().status == 400


def test_identity_is_off_by_default(plane: DataPlaneInProcess) -> None:
    plane.replica(OLD)
    plane.replica(NEW)
    document = {"routes": [{"model": "iris", "split": {"weighted": {OLD: 1}}, "rules": RULES}]}
    with Wire(plane.gateway(parse(RoutesDocument, document, "routes").routes)) as wire:
        assert rule_of(wire, "X-Caller: ann", f"X-Claims: {encoded(CLAIMS)}") is None
