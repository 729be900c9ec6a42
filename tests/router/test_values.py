"""What a header, cookie, parameter or claim must be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nstarx.spec.match import StringMatch
from nstarx.spec.pattern import LONGEST_SUBJECT
from router.values import value_test

CASES = [
    (StringMatch(exact="acme"), [b"acme"], [b"ACME", b"acme ", b"", None]),
    (StringMatch(exact=""), [b""], [b"a", None]),
    (StringMatch(prefix="ac"), [b"acme", b"ac"], [b"a", b"mac", None]),
    (StringMatch(suffix="me"), [b"acme", b"me"], [b"men", None]),
    (StringMatch(contains="cm"), [b"acme"], [b"ame", None]),
    (StringMatch(regex=r"v\d+"), [b"v12"], [b"xv12", b"v12x", b"v", None]),
    (StringMatch(regex="ä."), ["äß".encode()], [b"\xff\xff\xff", None]),
    (StringMatch(regex=".*"), [b"a" * LONGEST_SUBJECT], [b"a" * (LONGEST_SUBJECT + 1)]),
    (StringMatch(present=True), [b"", b"a"], [None]),
    (StringMatch(present=False), [None], [b"", b"a"]),
    (StringMatch(one_of=("a", "ü")), [b"a", "ü".encode()], [b"b", None]),
]


@pytest.mark.parametrize(("wanted", "met", "unmet"), CASES, ids=lambda case: str(case)[:40])
def test_rule_is_met_by_what_it_says_and_its_opposite_by_all_else(
    wanted: StringMatch, met: list[bytes | None], unmet: list[bytes | None]
) -> None:
    test = value_test(wanted)
    opposite = value_test(wanted.model_copy(update={"invert": True}))
    assert all(test(value) and not opposite(value) for value in met)
    assert all(opposite(value) and not test(value) for value in unmet)


@given(st.text(max_size=5), st.text(min_size=1, max_size=5), st.text(max_size=5))
def test_text_around_which_others_stand_is_contained(before: str, text: str, after: str) -> None:
    value = (before + text + after).encode()
    assert value_test(StringMatch(contains=text))(value)
    assert value_test(StringMatch(prefix=before + text))(value)
    assert value_test(StringMatch(suffix=text + after))(value)
