"""The response cache: who gets whose answer, what it looks like, how long it is kept, and that nobody is forgotten."""

import gzip
from collections.abc import Mapping
from typing import Any

import httptools
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.frames import FLAG_ACCEPT_GZIP, FLAG_GZIP, FLAG_STREAM, NO_JSON_LENGTH
from nstarx.errors import InvalidConfiguration
from nstarx.spec.cache import CacheSpec
from nstarx.spec.record import parse
from router.cache import PLAIN, RouteCache
from router.cached import HIT, PASSED, SHARED, Hit, render, render_new, without_id
from router.canonical import LIMIT, canonical
from router.conditions import ANY_AGE, NO_AGE, SECOND, matches, read_cache_control
from router.flights import Follow, Lead
from router.shelf import ALIASES
from serving.codec import Codec
from tests.serving.codec.samples import model, tensor

REF, OTHER = "iris@1.0.0", "iris@1.1.0"
DATE = b"date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
FAR = 1 << 60
"""A deadline that doesn't pass here."""

NO_HEADERS: Mapping[bytes, bytes] = {}

Cache = RouteCache[str]


def question(id: str | None = None, x: float = 5.1) -> bytes:
    document: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}]}
    return orjson.dumps(document if id is None else {"id": id, **document})


def answer(id: str | None = None, y: float = 1.5) -> bytes:
    """As the encoder of a replica writes it."""
    head: dict[str, Any] = {"model_name": "iris", "model_version": "1.0.0"}
    outputs = [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [y]}]
    return orjson.dumps({**head, **({} if id is None else {"id": id}), "outputs": outputs})


def cache(**settings: Any) -> Cache:
    return RouteCache(CacheSpec(**settings), "iris")


def ask(
    cache: Cache,
    body: bytes,
    headers: Mapping[bytes, bytes] = NO_HEADERS,
    *,
    ref: str = REF,
    json: int = NO_JSON_LENGTH,
    flags: int = 0,
    who: str = "someone",
    deadline: int = FAR,
    now: int = 0,
) -> Hit | Lead | Follow[str]:
    return cache.look_up(ref, body, json, flags, cache.terms(dict(headers)), who, deadline, now)


def lead(cache: Cache, body: bytes, *args: Any, **options: Any) -> Lead:
    found = ask(cache, body, *args, **options)
    assert isinstance(found, Lead)
    return found


def follow(cache: Cache, body: bytes, **options: Any) -> Follow[str]:
    found = ask(cache, body, **options)
    assert isinstance(found, Follow)
    return found


def hit(cache: Cache, body: bytes, *args: Any, **options: Any) -> Hit:
    found = ask(cache, body, *args, **options)
    assert isinstance(found, Hit)
    return found


def give(cache: Cache, lead: Lead, body: bytes, *, flags: int = 0, json: int = NO_JSON_LENGTH, now: int = 0) -> Hit:
    settled = cache.answered(lead, REF, flags, json, body, now)
    assert settled.hit
    return settled.hit


def keep(cache: Cache, body: bytes, answer: bytes, now: int = 0, **options: Any) -> Hit:
    """Ask for the first time, and get an answer."""
    return give(cache, lead(cache, body, now=now, **options), answer, now=now)


class Response:
    """An HTTP response, as a client's parser understands it."""

    def __init__(self, raw: bytes) -> None:
        self.body = b""
        self.headers: dict[str, str] = {}
        self.complete = False
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(raw)
        self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.decode() not in self.headers
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def response(hit: Hit, now: int = 0, verdict: bytes = HIT, if_none_match: bytes = b"") -> Response:
    got = Response(render(hit, verdict, now, DATE, b"x-request-id: r1\r\n", if_none_match))
    assert got.complete
    return got


# Who gets whose answer


def test_identical_request_gets_the_answer_again_without_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache()
    keep(kept, question(), answer())
    monkeypatch.setattr("router.cache.canonical", lambda *_: pytest.fail("the body was read"))
    assert response(hit(kept, bytes(bytearray(question())))).body == answer()
    assert kept.reading()["hits"] == 1


def test_same_question_written_otherwise_is_read_once_and_then_known(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache()
    keep(kept, question(), answer())
    otherwise = b'{ "inputs" : [ {"shape":[1,1], "data":[5.10], "datatype":"FP32",\n "name":"\\u0078"} ], "id": null }'
    assert response(hit(kept, otherwise)).body == answer()
    monkeypatch.setattr("router.cache.canonical", lambda *_: pytest.fail("the body was read again"))
    hit(kept, otherwise)


@pytest.mark.parametrize(
    "options",
    [
        {"body": question(x=5.2)},
        {"ref": OTHER},
        {"json": len(question())},
        {"flags": FLAG_ACCEPT_GZIP},
        {"body": gzip.compress(question()), "flags": FLAG_GZIP},
        {"headers": {b"x-tenant": b"b"}},
        {"headers": {}},
        {"headers": {b"x-tenant": b""}},
    ],
    ids=str,
)
def test_another_question_version_form_or_varying_header_is_another_entry(options: dict[str, Any]) -> None:
    kept = cache(vary=["X-Tenant"])
    known: dict[str, Any] = {"body": question(), "headers": {b"x-tenant": b"a"}}
    keep(kept, **known, answer=answer())
    hit(kept, **known)
    assert isinstance(ask(kept, **{**known, **options}), Lead)


def test_request_with_another_id_is_answered_with_its_own() -> None:
    kept = cache()
    first = keep(kept, question("a1"), answer("a1"))
    assert orjson.loads(response(first).body) == orjson.loads(answer("a1"))
    for id in ("b2", 'ü"\\\n', "", "a1"):
        assert orjson.loads(response(hit(kept, question(id))).body) == orjson.loads(answer(id))
    assert response(hit(kept, question())).body == answer()
    assert kept.reading()["misses"] == 1


def test_endless_new_ids_neither_run_the_model_nor_fill_the_memory() -> None:
    kept = cache()
    keep(kept, question(), answer())
    for number in range(1000):
        hit(kept, question(str(number)))
    assert kept.reading()["misses"] == 1
    assert kept.reading()["bytes"] < 20_000
    assert len(kept._known) == ALIASES


def test_id_of_a_binary_answer_moves_the_end_of_its_json() -> None:
    tail = b"\x01\x02\x03\x04"
    kept = cache()
    first = answer("a1")
    settled = kept.answered(lead(kept, question("a1")), REF, 0, len(first), first + tail, 0)
    assert settled.hit
    for id in ("a1", "another", None):
        got = response(hit(kept, question(id)))
        json = int(got.headers["inference-header-content-length"])
        assert got.headers["content-type"] == "application/octet-stream"
        assert (orjson.loads(got.body[:json]), got.body[json:]) == (orjson.loads(answer(id)), tail)


def test_binary_input_counts_with_its_bytes() -> None:
    kept = cache()
    json = b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}}]}'
    keep(kept, json + b"ab", answer(), json=len(json))
    spaced = json.replace(b":", b": ")
    hit(kept, spaced + b"ab", json=len(spaced))
    assert isinstance(ask(kept, json + b"ba", json=len(json)), Lead)
    assert isinstance(ask(kept, json + b"ab", json=0), Lead)


def test_request_with_an_id_is_sent_without_compression_for_its_answer() -> None:
    kept = cache()
    assert lead(kept, question("a1"), flags=FLAG_ACCEPT_GZIP).flags == 0
    assert lead(kept, question(), flags=FLAG_ACCEPT_GZIP).flags == FLAG_ACCEPT_GZIP


def test_compressed_answer_is_kept_as_it_is_for_who_accepts_it() -> None:
    kept = cache()
    packed = gzip.compress(answer())
    give(kept, lead(kept, question(), flags=FLAG_ACCEPT_GZIP), packed, flags=FLAG_GZIP)
    got = response(hit(kept, question(), flags=FLAG_ACCEPT_GZIP))
    assert (got.body, got.headers["content-encoding"]) == (packed, "gzip")


@pytest.mark.parametrize("given", [gzip.compress(answer("a1")), answer(), answer("b2"), b'["a1"]', b""])
def test_answer_whose_id_cannot_be_taken_out_goes_to_its_caller_alone(given: bytes) -> None:
    kept = cache()
    leader = lead(kept, question("a1"))
    follow(kept, question("b2"), who="second")
    flags = FLAG_GZIP if given[:2] == b"\x1f\x8b" else 0
    settled = kept.answered(leader, REF, flags, NO_JSON_LENGTH, given, 0)
    assert settled.hit is None
    [(who, turn)] = settled.turns
    assert (who, isinstance(turn, Lead)) == ("second", True)
    assert kept.reading()["entries"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"parameters":{"id":"a"},"outputs":[]}',
        b'{"outputs":["id","id":"a"]}',
        b'{"model_name":"\\"id\\":\\"a\\"","outputs":[]}',
        b'{"x":"y","id":"a" }',
        b'{"id":"a"}',
        b'"id":"a"',
    ],
)
def test_only_a_member_of_the_answer_itself_is_taken_for_its_id(body: bytes) -> None:
    assert without_id(body, b'"a"') is None


@given(id=st.text(), name=st.text(), first=st.booleans())
def test_taking_an_id_out_leaves_everything_else(id: str, name: str, first: bool) -> None:
    rest = {"model_name": name, "outputs": [{"id": id}, '"id":""']}
    document = {"id": id, **rest} if first else {"model_name": name, "id": id, **rest}
    bare = without_id(orjson.dumps(document), orjson.dumps(id))
    assert bare is None or orjson.loads(bare) == rest
    assert bare is not None or "{" in name or "[" in name or len(orjson.dumps(name)) > 900


# What the replica makes of it

SPEC = model([tensor("x", "FP32", -1)], [tensor("y", "FP32", -1)], max_batch_size=1)
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False, width=32))


@st.composite
def spelling(draw: Any) -> bytes:
    """One of the many ways to write one of few questions."""
    data = draw(st.sampled_from([[1, 2], [1.0, 2.0], [100.0, 2.5], [2, 1]]))
    tensor = [("name", "x"), ("datatype", "FP32"), ("shape", [2]), ("data", data)]
    members = [("inputs", [dict(draw(st.permutations(tensor)))]), *draw(st.sampled_from([[], [("id", "a")]]))]
    text = orjson.dumps(dict(draw(st.permutations(members))), option=draw(st.sampled_from([0, orjson.OPT_INDENT_2])))
    return text.replace(b"100.0", draw(st.sampled_from([b"100.0", b"1e2", b"1.0E+2"])))


@given(one=spelling(), two=spelling())
def test_bodies_with_one_key_are_one_to_the_replica(one: bytes, two: bytes) -> None:
    codec = Codec(SPEC)
    if canonical(one, NO_JSON_LENGTH, 0).digest == canonical(two, NO_JSON_LENGTH, 0).digest:
        np.testing.assert_array_equal(codec.decode(one).inputs["x"], codec.decode(two).inputs["x"])


@given(numbers=st.lists(NUMBERS, min_size=1, max_size=4))
def test_numbers_count_as_the_replica_reads_them(numbers: list[float]) -> None:
    texts = [repr(number).encode() for number in numbers]
    body = b'{"inputs":[{"name":"x","data":[%b]}]}' % b",".join(texts)
    longer = body.replace(b",", b" , ")
    assert canonical(body, NO_JSON_LENGTH, 0) == canonical(longer, NO_JSON_LENGTH, 0)
    other = b'{"inputs":[{"name":"x","data":[%b]}]}' % b",".join(reversed(texts))
    same = orjson.loads(other) == orjson.loads(body)
    assert same or canonical(body, NO_JSON_LENGTH, 0) != canonical(other, NO_JSON_LENGTH, 0)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"id":1}', b"\xff", b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"]
)
def test_body_that_is_no_request_stands_for_itself(body: bytes) -> None:
    digest, id = canonical(body, NO_JSON_LENGTH, 0)
    assert id == b""
    assert digest != canonical(body + b" ", NO_JSON_LENGTH, 0).digest


def test_long_or_compressed_json_is_not_read() -> None:
    long = question("a1") + b" " * LIMIT
    assert canonical(long, NO_JSON_LENGTH, 0).id == b""
    assert canonical(question("a1"), NO_JSON_LENGTH, FLAG_GZIP).id == b""


def test_what_the_real_encoder_writes_can_be_kept_and_given_to_others() -> None:
    codec = Codec(SPEC)
    kept = cache()
    asked = b'{"id":"a1","inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]}]}'
    [written] = codec.encode([codec.decode(asked)], {"y": np.array([[3, 4]], np.float32)[0]})
    keep(kept, asked, written.body)
    given = response(hit(kept, asked.replace(b"a1", b"b2"))).body
    assert orjson.loads(given) == {**orjson.loads(written.body), "id": "b2"}


# What it looks like


def test_answer_of_a_public_route_tells_a_cdn_all_it_needs() -> None:
    kept: Cache = RouteCache(CacheSpec(public=True, vary=("X-Tenant",), ttl_s=90), "flowers", ("x-beta", "x-tenant"))
    got = response(keep(kept, question(), answer(), now=5 * SECOND), now=47 * SECOND)
    assert got.status == 200
    assert got.headers == {
        "x-nstarx-version": "iris@1.0.0",
        "cache-control": "public, max-age=90",
        "vary": "accept, accept-encoding, content-encoding, inference-header-content-length, x-tenant, x-beta",
        "surrogate-key": "version:iris@1.0.0 model:iris route:flowers",
        "content-type": "application/json",
        "etag": got.headers["etag"],
        "content-length": str(len(answer())),
        "x-nstarx-cache": "hit",
        "age": "42",
        "date": "Thu, 01 Jan 2026 00:00:00 GMT",
        "x-request-id": "r1",
    }


def test_answer_of_another_route_is_for_its_client_alone() -> None:
    got = response(keep(cache(), question(), answer()))
    assert got.headers["cache-control"] == "private, max-age=60"
    assert "surrogate-key" not in got.headers


def test_first_answer_has_the_same_etag_but_no_age() -> None:
    kept = cache()
    first = Response(render_new(keep(kept, question("a1"), answer("a1")), DATE))
    again = response(hit(kept, question("a1")))
    assert (first.headers["x-nstarx-cache"], "age" in first.headers) == ("miss", False)
    assert (first.body, first.headers["etag"]) == (again.body, again.headers["etag"])


@given(st.lists(st.tuples(st.none() | st.text(max_size=3), st.integers(0, 2), st.sampled_from([REF, OTHER]))))
def test_equal_etags_promise_equal_bytes(requests: list[tuple[str | None, int, str]]) -> None:
    kept = cache()
    bytes_of: dict[str, bytes] = {}
    for id, x, ref in requests:
        found = ask(kept, question(id, x), ref=ref)
        if isinstance(found, Lead):
            found = kept.answered(found, ref, 0, NO_JSON_LENGTH, answer(id, x), 0).hit or found
        assert isinstance(found, Hit)
        got = response(found)
        assert got.headers["etag"].startswith('"')
        assert bytes_of.setdefault(got.headers["etag"], got.body) == got.body
    assert len(set(bytes_of.values())) <= len(bytes_of)


def test_client_that_has_the_answer_gets_304_and_no_body() -> None:
    kept = cache(public=True)
    etag = keep(kept, question(), answer()).etag
    for condition in (etag, b"W/" + etag, b'"x", ' + etag, b"*"):
        got = response(hit(kept, question()), if_none_match=condition)
        assert (got.status, got.body) == (304, b"")
        assert {"etag", "date", "vary", "cache-control", "age"} <= got.headers.keys()
        assert "content-length" not in got.headers
    fresh = Response(render_new(hit(kept, question()), DATE, if_none_match=etag))
    assert (fresh.status, fresh.headers["x-nstarx-cache"]) == (304, "miss")
    assert response(hit(kept, question()), if_none_match=b'"other"').status == 200


def test_etag_of_another_id_is_not_taken_for_ones_own() -> None:
    kept = cache()
    etag = keep(kept, question("a1"), answer("a1")).etag
    assert response(hit(kept, question("b2")), if_none_match=etag).status == 200


@pytest.mark.parametrize("condition", [b"", b"abc", b'"abcd"', b'"x","y"', b'"abc', b'"x*"'])
def test_only_whole_tags_match(condition: bytes) -> None:
    assert not matches(b'"abc"', condition)


def test_what_passes_the_cache_by_tells_other_caches_to_do_the_same() -> None:
    assert Response(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n%b\r\n" % PASSED).headers["cache-control"] == "no-store"


# What clients ask for


@pytest.mark.parametrize(
    ("value", "terms"),
    [
        (b"no-store", (NO_AGE, False)),
        (b"No-Cache", (NO_AGE, True)),
        (b"max-age=0", (NO_AGE, True)),
        (b"max-age=10", (10 * SECOND, True)),
        (b'max-age="10", max-age=20', (10 * SECOND, True)),
        (b"max-age=" + b"9" * 5000, (ANY_AGE, True)),
        (b"max-age", (NO_AGE, True)),
        (b"max-age=-1", (NO_AGE, True)),
        (b"max-age=1, no-store", (NO_AGE, False)),
        (b"only-if-cached, max-stale, ,x=y", (ANY_AGE, True)),
    ],
)
def test_cache_control_of_a_request(value: bytes, terms: tuple[int, bool]) -> None:
    assert read_cache_control(value) == terms


@given(st.binary())
def test_no_cache_control_breaks_the_reader(value: bytes) -> None:
    max_age, _ = read_cache_control(value)
    assert NO_AGE <= max_age <= ANY_AGE


def test_no_store_neither_gets_nor_leaves_anything() -> None:
    kept = cache()
    headers = {b"cache-control": b"no-store"}
    assert kept.answered(lead(kept, question(), headers), REF, 0, NO_JSON_LENGTH, answer(), 0).hit is None
    assert kept.reading()["entries"] == 0
    keep(kept, question(), answer())
    assert lead(kept, question(), headers).asked is None
    assert kept.reading()["bypasses"] == 2


def test_no_cache_gets_a_new_answer_and_leaves_it_for_others() -> None:
    kept = cache()
    keep(kept, question(), answer(y=1))
    give(kept, lead(kept, question(), {b"cache-control": b"no-cache"}), answer(y=2))
    assert response(hit(kept, question())).body == answer(y=2)
    assert kept.reading()["entries"] == 1


def test_client_may_refuse_answers_that_are_too_old_for_it() -> None:
    kept = cache()
    keep(kept, question(), answer())
    headers = {b"cache-control": b"max-age=10"}
    hit(kept, question(), headers, now=10 * SECOND)
    assert isinstance(ask(kept, question(), headers, now=11 * SECOND), Lead)


def test_requests_without_a_word_about_caching_cost_no_terms() -> None:
    assert cache().terms({b"host": b"x"}) is PLAIN


def test_streams_pass_by() -> None:
    kept = cache()
    for _ in range(2):
        leader = lead(kept, question(), flags=FLAG_STREAM)
        assert (leader.flags, leader.asked) == (FLAG_STREAM, None)
        assert kept.failed(leader, 0) == []


# How long it is kept


def test_answer_is_given_until_its_time_is_over_and_then_forgotten() -> None:
    kept = cache(ttl_s=10)
    keep(kept, question(), answer())
    hit(kept, question(), now=10 * SECOND - 1)
    leader = lead(kept, question(), now=10 * SECOND)
    kept.failed(leader, 10 * SECOND)
    assert kept.reading()["entries"] == 1
    kept.sweep(10 * SECOND)
    assert {key: kept.reading()[key] for key in ("entries", "bytes", "expirations")} == {
        "entries": 0,
        "bytes": 0,
        "expirations": 1,
    }


def test_hit_does_not_make_an_answer_live_longer() -> None:
    kept = cache(ttl_s=10)
    keep(kept, question(), answer())
    keep(kept, question(x=2), answer(), now=5 * SECOND)
    hit(kept, question(), now=9 * SECOND)
    kept.sweep(10 * SECOND)
    assert isinstance(ask(kept, question(), now=9 * SECOND), Lead)
    hit(kept, question(x=2), now=10 * SECOND)


def test_least_recently_used_goes_first() -> None:
    kept = cache(max_bytes=9000, max_entry_bytes=1000)
    for x in range(4):
        keep(kept, question(x=x), answer())
    hit(kept, question(x=0))
    keep(kept, question(x=4), answer())
    assert kept.reading()["evictions"] == 1
    assert kept.reading()["bytes"] <= 9000
    hit(kept, question(x=0))
    assert isinstance(ask(kept, question(x=1)), Lead)


def test_too_large_an_answer_is_shared_but_not_kept() -> None:
    kept = cache(max_entry_bytes=500)
    leader = lead(kept, question())
    follow(kept, question(), who="second")
    big = answer().replace(b"iris", b"i" * 500)
    settled = kept.answered(leader, REF, 0, NO_JSON_LENGTH, big, 0)
    assert settled.turns == [("second", settled.hit)]
    assert kept.reading()["bytes"] == 0
    assert isinstance(ask(kept, question()), Lead)


def test_too_large_a_request_passes_by() -> None:
    kept = cache(max_entry_bytes=500)
    assert lead(kept, question() + b" " * 500).asked is None


def test_long_requests_do_not_fill_the_cache() -> None:
    kept = cache()
    long = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[5000],"data":[%b]}]}' % b",".join([b"1.5"] * 5000)
    keep(kept, long, answer())
    assert kept.reading()["bytes"] < 3000
    assert response(hit(kept, bytes(bytearray(long)))).body == answer()
    assert isinstance(ask(kept, long.replace(b"1.5]", b"2.5]")), Lead)


@pytest.mark.parametrize(
    ("word", "left"),
    [
        ("version:iris@1.0.0", {OTHER}),
        ("model:iris", set()),
        ("route:iris", set()),
        (None, set()),
        ("version:iris@1.0", {REF, OTHER}),
        ("iris", {REF, OTHER}),
    ],
)
def test_purge_by_a_surrogate_key(word: str | None, left: set[str]) -> None:
    kept = cache()
    for ref in (REF, OTHER):
        kept.answered(lead(kept, question(), ref=ref), ref, 0, NO_JSON_LENGTH, answer(), 0)
    assert kept.purge(word) == 2 - len(left)
    assert {ref for ref in (REF, OTHER) if isinstance(ask(kept, question(), ref=ref), Hit)} == left


def test_answer_begun_before_a_purge_reaches_who_waits_but_is_not_kept() -> None:
    kept = cache()
    leader = lead(kept, question())
    alone = lead(kept, question(), {b"cache-control": b"no-cache"})
    follow(kept, question(), who="before")
    kept.purge("version:iris@1.0.0")
    after = lead(kept, question())
    settled = kept.answered(leader, REF, 0, NO_JSON_LENGTH, answer(y=1), 0)
    assert settled.turns == [("before", settled.hit)]
    give(kept, alone, answer(y=1))
    assert kept.reading()["entries"] == 0
    follow(kept, question(), who="after")
    assert [who for who, _ in kept.answered(after, REF, 0, NO_JSON_LENGTH, answer(y=2), 0).turns] == ["after"]
    assert response(hit(kept, question())).body == answer(y=2)


def test_answer_that_another_version_gave_is_not_kept() -> None:
    kept = cache()
    leader = lead(kept, question())
    follow(kept, question(), who="second")
    settled = kept.answered(leader, OTHER, 0, NO_JSON_LENGTH, answer(), 0)
    assert settled.hit is None
    assert [who for who, _ in settled.turns] == ["second"]
    assert kept.reading()["entries"] == 0


def test_answer_flagged_as_invalid_is_neither_kept_nor_shared() -> None:
    kept = cache()
    leader = lead(kept, question())
    follow(kept, question(), who="second")
    settled = kept.answered(leader, REF, 32, NO_JSON_LENGTH, answer(), 0)
    assert settled.hit is None
    assert [isinstance(turn, Lead) for _, turn in settled.turns] == [True]
    assert kept.reading()["entries"] == 0


# Single flight


def test_identical_requests_wait_for_one_and_get_its_answer() -> None:
    kept = cache()
    leader = lead(kept, question("a1"))
    follow(kept, question("a1"), who="same")
    follow(kept, question("b2"), who="other id")
    follow(kept, question(), who="no id")
    settled = kept.answered(leader, REF, 0, NO_JSON_LENGTH, answer("a1"), 7)
    assert settled.hit
    given = {who: turn for who, turn in settled.turns if isinstance(turn, Hit)}
    assert given["same"] is settled.hit
    bodies = {who: orjson.loads(response(turn, 7, SHARED).body) for who, turn in given.items()}
    assert bodies == {
        who: orjson.loads(answer(id)) for who, id in [("same", "a1"), ("other id", "b2"), ("no id", None)]
    }
    assert response(given["same"], 7, SHARED).headers["x-nstarx-cache"] == "shared"
    assert (kept.reading()["misses"], kept.reading()["followers"], kept.busy) == (1, 3, False)


def test_leader_that_fails_hands_on_and_a_second_failure_lets_all_run() -> None:
    kept = cache()
    leader = lead(kept, question())
    for who in "abc":
        follow(kept, question(), who=who)
    [(who, first)] = kept.failed(leader, 0)
    assert who == "a"
    assert isinstance(first, Lead)
    turns = kept.failed(first, 0)
    assert [who for who, _ in turns] == ["b", "c"]
    assert all(isinstance(turn, Lead) and turn.flight is None for _, turn in turns)
    assert not kept.busy


def test_leaders_that_leave_hand_on_however_many_there_are() -> None:
    kept = cache()
    leader = lead(kept, question())
    for who in "abcd":
        follow(kept, question(), who=who)
    for who in "abcd":
        [(heir, turn)] = kept.abandoned(leader, 0)
        assert heir == who
        assert isinstance(turn, Lead)
        leader = turn
    assert kept.abandoned(leader, 0) == []
    assert not kept.busy


def test_heir_answers_for_those_who_still_wait() -> None:
    kept = cache()
    leader = lead(kept, question())
    follow(kept, question("a1"), who="heir")
    follow(kept, question(), who="last")
    [(_, heir)] = kept.failed(leader, 0)
    assert isinstance(heir, Lead)
    settled = kept.answered(heir, REF, 0, NO_JSON_LENGTH, answer("a1"), 0)
    [(who, turn)] = settled.turns
    assert who == "last"
    assert isinstance(turn, Hit)
    assert response(turn).body == answer()


def test_follower_does_not_wait_past_its_deadline() -> None:
    kept = cache()
    lead(kept, question(), deadline=1000)
    follow(kept, question(), who="hasty", deadline=10)
    follow(kept, question(), who="patient", deadline=1000)
    assert kept.sweep(9) == []
    assert kept.sweep(10) == [("hasty", None)]


def test_lead_is_never_given_to_one_whose_time_is_over() -> None:
    kept = cache()
    leader = lead(kept, question())
    follow(kept, question(), who="late", deadline=10)
    follow(kept, question(), who="in time", deadline=100)
    late, (who, turn) = kept.failed(leader, 50)
    assert late == ("late", None)
    assert (who, isinstance(turn, Lead)) == ("in time", True)


def test_follower_that_leaves_is_not_asked_again() -> None:
    kept = cache()
    leader = lead(kept, question())
    gone = follow(kept, question(), who="gone")
    kept.leave(gone)
    kept.leave(gone)
    assert kept.answered(leader, REF, 0, NO_JSON_LENGTH, answer(), 0).turns == []


def test_leader_that_never_reports_is_replaced_and_may_still_answer_for_all() -> None:
    kept = cache()
    silent = lead(kept, question(), deadline=10)
    follow(kept, question(), who="heir", deadline=100)
    follow(kept, question(), who="last", deadline=100)
    [(who, turn)] = kept.sweep(10)
    assert (who, isinstance(turn, Lead)) == ("heir", True)
    assert kept.failed(silent, 11) == kept.abandoned(silent, 11) == []
    settled = kept.answered(silent, REF, 0, NO_JSON_LENGTH, answer(), 12)
    assert settled.turns == [("last", settled.hit)]
    hit(kept, question(), now=13)


def test_heir_that_never_reports_is_replaced_when_its_own_time_is_over() -> None:
    kept = cache()
    lead(kept, question(), deadline=10)
    follow(kept, question(), who="heir", deadline=50)
    follow(kept, question(), who="last", deadline=100)
    assert [who for who, _ in kept.sweep(10)] == ["heir"]
    assert kept.sweep(49) == []
    assert [who for who, _ in kept.sweep(50)] == ["last"]


class Crowd(RuleBasedStateMachine):
    """Whatever leaders, followers and time do: each request gets exactly one turn, and the books are right."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = cache(max_bytes=9000, max_entry_bytes=400, ttl_s=1e-7)
        self.now = 0
        self.waiting: dict[str, Follow[str]] = {}
        self.deadlines: dict[str, int] = {}
        self.leads: list[tuple[Lead, str | None]] = []
        self.names = iter(map(str, range(10_000)))

    def carry_out(self, turns: list[Any]) -> None:
        for who, turn in turns:
            waited = self.waiting.pop(who)
            if turn is None:
                assert self.deadlines[who] <= self.now
            elif isinstance(turn, Lead):
                self.leads.append((turn, orjson.loads(waited.asked.id or b"null")))
            else:
                id = orjson.loads(waited.asked.id or b"null")
                assert orjson.loads(response(turn).body).get("id") == id

    @rule(
        x=st.integers(0, 3),
        id=st.sampled_from([None, "a", "b"]),
        ref=st.sampled_from([REF, OTHER]),
        patience=st.integers(1, 60),
        control=st.sampled_from([{}, {}, {}, {b"cache-control": b"no-cache"}, {b"cache-control": b"no-store"}]),
    )
    def come(self, x: int, id: str | None, ref: str, patience: int, control: dict[bytes, bytes]) -> None:
        who = next(self.names)
        deadline = self.deadlines[who] = self.now + patience
        found = ask(self.cache, question(id, x), control, ref=ref, who=who, deadline=deadline, now=self.now)
        if isinstance(found, Lead):
            self.leads.append((found, id))
        elif isinstance(found, Follow):
            self.waiting[who] = found
        else:
            assert orjson.loads(response(found, self.now).body).get("id") == id
            assert self.now - found.entry.born < 100

    @precondition(lambda self: self.leads)
    @rule(data=st.data(), end=st.sampled_from(["answered", "other version", "failed", "abandoned"]))
    def end(self, data: st.DataObject, end: str) -> None:
        lead, id = self.leads.pop(data.draw(st.integers(0, len(self.leads) - 1)))
        if end == "failed":
            self.carry_out(self.cache.failed(lead, self.now))
        elif end == "abandoned":
            self.carry_out(self.cache.abandoned(lead, self.now))
        else:
            ref = "iris@9.9.9" if end == "other version" or not lead.asked else lead.asked.key[0]
            self.carry_out(self.cache.answered(lead, ref, 0, NO_JSON_LENGTH, answer(id), self.now).turns)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.cache.leave(self.waiting.pop(data.draw(st.sampled_from(sorted(self.waiting)))))

    @rule(nanoseconds=st.integers(1, 40))
    def sweep(self, nanoseconds: int) -> None:
        self.now += nanoseconds
        self.carry_out(self.cache.sweep(self.now))
        assert all(self.deadlines[who] > self.now for who in self.waiting)

    @rule(word=st.sampled_from([None, f"version:{REF}"]))
    def purge(self, word: str | None) -> None:
        self.cache.purge(word)

    @invariant()
    def books_are_right(self) -> None:
        shelf = self.cache._shelf
        assert shelf.bytes == sum(entry.cost for entry in shelf.by_use) <= 9000
        assert len(shelf) == len(shelf.by_use) == len(shelf._by_age)
        assert len(shelf.hits) == sum(len(entry.aliases) for entry in shelf.by_use)

    def teardown(self) -> None:
        self.now += 10_000
        self.carry_out(self.cache.sweep(self.now))
        assert not self.waiting
        assert not self.cache.busy


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# Settings


def test_cache_has_defaults_and_header_names_are_lower_case() -> None:
    spec = parse(CacheSpec, {"max_bytes": "1Mi", "ttl_s": 5, "vary": ["X-Tenant"]}, "test")
    assert (spec.max_bytes, spec.ttl_s, spec.vary, spec.public) == (1 << 20, 5.0, ("x-tenant",), False)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"max_bytes": "1Ki"}, "at most max_bytes"),
        ({"max_entry_bytes": 0}, "above 0"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"vary": ["x-a", "X-A"]}, "twice"),
        ({"vary": ["x a"]}, "not a header name"),
        ({"vary": ["*"]}, "not a header name"),
        ({"vary": ["Content-Length"]}, "how a request travels"),
        ({"stale_s": 5}, "unknown key"),
    ],
)
def test_wrong_settings_are_refused_with_a_reason(document: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidConfiguration, match=problem):
        parse(CacheSpec, document, "test")
