"""Patterns that no value can make slow."""

import re
import time

import pytest

from nstarx.spec.pattern import LONGEST_SUBJECT, valid_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "v2",
        r"v\d+\.\d+",
        ".*canary.*",
        ".*foo.*bar",
        "(?i)chrome/1[0-9]{2}.*",
        "de|fr|it",
        "[a-z]{2}(-[A-Z]{2})?",
        r"\d++(\.\d++)*+",
        "(?>a*)*b",
        "(?=.*a)b.*",
        "(?P<q>a)?(?(q)b|c)",
        "(?:ab?){1,3}",
        r"(a)\1?",
        "x{1000}",
    ],
)
def test_pattern_that_people_write_is_taken(pattern: str) -> None:
    assert valid_pattern(pattern) == pattern


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", "(a|a)*b", "(a|ab)*c", ".*.*.*x", "(a?){40}", r"(\w+\s?)*!", "((a{0,9}){0,9}){0,9}", r"(a*)(b*)\1\2"],
)
def test_pattern_that_some_value_makes_slow_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="could take very long"):
        valid_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(", "[a", "a{99999999999999}", "x" * 257])
def test_what_is_no_pattern_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"not a regular expression|256 are allowed"):
        valid_pattern(pattern)


@pytest.mark.parametrize("pattern", [".*aaa.*aab", ".*?a.*?b", r"\w*\w*b", "(?>a*)*b", r"(a*)\1b"])
def test_slowest_patterns_that_are_taken_end_soon(pattern: str) -> None:
    compiled = re.compile(valid_pattern(pattern))
    begun = time.process_time()
    assert not compiled.fullmatch("a" * LONGEST_SUBJECT)
    assert time.process_time() - begun < 0.1
