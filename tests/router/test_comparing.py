"""Answers that would hold up the event loop are not read."""

import gzip
from typing import Any

import orjson
import pytest

from judging.answers import Answer
from judging.comparison import Outcome
from router.comparing import MOST_BYTES, MOST_JSON_BYTES, compare_small
from tests.judging.shadows import answer, failed, iris, shadow

SPEC = shadow()


def floats(count: int, value: float, version: str = "1.0.0") -> Answer:
    return answer(version, y=[value] * count)


def packed(plain: Answer) -> Answer:
    return plain._replace(body=gzip.compress(plain.body))


def binary(size: int, fill: bytes) -> Answer:
    form = {"name": "y", "datatype": "UINT8", "shape": [size], "parameters": {"binary_data_size": size}}
    head = orjson.dumps({"outputs": [form]})
    return Answer(200, head + fill * size, len(head))


def test_small_answers_are_compared() -> None:
    assert compare_small(iris(), iris(1), SPEC).outcome is Outcome.compared
    assert not compare_small(iris(), iris(1), SPEC).equal


@pytest.mark.parametrize("pack", [packed, lambda plain: plain], ids=["packed", "plain"])
def test_json_that_takes_long_to_read_is_not_read(pack: Any) -> None:
    count = MOST_JSON_BYTES // 4
    assert compare_small(pack(floats(count, 1.5)), pack(floats(count, 2.5)), SPEC).outcome is Outcome.answered
    count //= 2
    assert compare_small(pack(floats(count, 1.5)), pack(floats(count, 2.5)), SPEC).outcome is Outcome.compared


def test_binary_may_be_larger() -> None:
    assert compare_small(binary(MOST_JSON_BYTES, b"a"), binary(MOST_JSON_BYTES, b"b"), SPEC).outcome is Outcome.compared
    assert compare_small(binary(MOST_BYTES, b"a"), binary(MOST_BYTES, b"b"), SPEC).outcome is Outcome.answered


def test_bomb_is_not_unpacked() -> None:
    bomb = Answer(200, gzip.compress(bytes(100 << 20)))
    assert compare_small(bomb, packed(iris()), SPEC).outcome is Outcome.answered


def test_same_bytes_are_equal_at_any_size() -> None:
    assert compare_small(floats(1 << 18, 1.5), floats(1 << 18, 1.5, "2.0.0"), SPEC).equal


def test_failures_need_no_reading() -> None:
    large = floats(1 << 18, 1.5)
    assert compare_small(large, failed(500), SPEC).outcome is Outcome.shadow_failed
    assert compare_small(failed(500), large, SPEC).outcome is Outcome.primary_failed
    assert compare_small(iris(), iris(1), shadow(compare=False)).outcome is Outcome.answered
