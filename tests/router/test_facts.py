"""What a request offers to matching, read from what hostile clients may send."""

from hypothesis import given
from hypothesis import strategies as st

from router.facts import MOST_COOKIES, MOST_PARAMETERS, Facts, read_cookies, read_query


def test_query_is_decoded_and_the_first_of_a_name_wins() -> None:
    facts = Facts({}, b"/v2/models/iris/infer?user=a%20b+c&user=second&flag&empty=&%C3%A4=%3D#part?not=this")
    assert facts.query == {b"user": b"a b c", b"flag": b"", b"empty": b"", "ä".encode(): b"="}


def test_url_without_query_has_no_parameters() -> None:
    assert Facts({}, b"/v2").query == Facts({}, b"/v2?").query == Facts({}, b"/v2?&&").query == {}


def test_cookies_are_read_leniently_and_the_first_of_a_name_wins() -> None:
    facts = Facts({b"cookie": b' a=1;b="two words" ; a=2;;nonsense;=nameless; c=x=y; d=" '}, b"/")
    assert facts.cookies == {b"a": b"1", b"b": b"two words", b"c": b"x=y", b"d": b'"'}


def test_request_without_cookies_has_none() -> None:
    assert Facts({}, b"/").cookies == {}


def test_nothing_is_parsed_before_it_is_asked_for_nor_twice() -> None:
    facts = Facts({b"cookie": b"a=1"}, b"/?b=2")
    assert facts._query is facts._cookies is None
    assert facts.query is facts.query
    assert facts.cookies is facts.cookies


def test_endless_lists_are_read_up_to_a_bound() -> None:
    many = [b"%d=1" % n for n in range(10_000)]
    assert len(read_query(b"/?" + b"&".join(many))) == MOST_PARAMETERS
    assert len(read_cookies(b";".join(many))) == MOST_COOKIES
    assert set(read_query(b"/?" + b"&".join(many)).values()) == {b"1"}


def test_token_that_nobody_has_verified_is_not_read() -> None:
    facts = Facts({b"authorization": b"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0."}, b"/")
    assert facts.claims == {}
    assert facts.caller is None


@given(st.binary(max_size=200))
def test_whatever_bytes_come_reading_them_ends_well(junk: bytes) -> None:
    facts = Facts({b"cookie": junk}, b"/?" + junk)
    assert all(name and name == name.strip() for name in facts.cookies)
    assert all(isinstance(value, bytes) for value in facts.query.values())
