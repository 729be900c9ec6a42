"""Values: what a header, cookie, parameter or claim must be."""

import re
from collections.abc import Callable

from nstarx.spec.match import StringMatch
from nstarx.spec.pattern import LONGEST_SUBJECT

ValueTest = Callable[[bytes | None], bool]
"""Whether a value is as wanted; None stands for a missing one."""


def value_test(wanted: StringMatch) -> ValueTest:
    """What says whether a value is as wanted."""
    holds = _rule(wanted)
    return (lambda value: not holds(value)) if wanted.invert else holds


def _rule(wanted: StringMatch) -> ValueTest:
    if wanted.present is not None:
        return _is_there if wanted.present else _is_missing
    if wanted.regex is not None:
        return _matches(wanted.regex)
    if wanted.prefix is not None:
        return _begins_with(wanted.prefix.encode())
    if wanted.suffix is not None:
        return _ends_with(wanted.suffix.encode())
    if wanted.contains is not None:
        return _contains(wanted.contains.encode())
    texts = wanted.one_of if wanted.exact is None else (wanted.exact,)
    return frozenset(text.encode() for text in texts or ()).__contains__


def _is_there(value: bytes | None) -> bool:
    return value is not None


def _is_missing(value: bytes | None) -> bool:
    return value is None


def _begins_with(text: bytes) -> ValueTest:
    return lambda value: value is not None and value.startswith(text)


def _ends_with(text: bytes) -> ValueTest:
    return lambda value: value is not None and value.endswith(text)


def _contains(text: bytes) -> ValueTest:
    return lambda value: value is not None and text in value


def _matches(pattern: str) -> ValueTest:
    full_match = re.compile(pattern).fullmatch

    def holds(value: bytes | None) -> bool:
        if value is None or len(value) > LONGEST_SUBJECT:
            return False
        return full_match(value.decode("utf-8", "replace")) is not None

    return holds
