"""The most different requests, and what is kept of them."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.answers import Answer
from judging.comparison import compare
from judging.shadow_examples import MAX_PAYLOAD_BYTES, REDACTED, Example, Pair, example, kept_with, most_different
from nstarx.spec.shadow import ShadowSpec
from tests.judging.shadows import CLASSES, REQUEST, answer, failed, iris, pair, shadow
from tests.serving.codec.strategies import patient

SECRET = 31337.0
OTHER = iris(1, (0.25, 0.75, 0.0))


def example_of(given: Pair, **changes: Any) -> Example:
    spec = shadow(tolerances={"label": CLASSES}, **changes)
    return example(given, compare(given.primary, given.shadow, spec), spec)


def numbers(distances: list[float], limit: int) -> list[Example]:
    """What is kept of pairs whose single output is off by these, one after the other."""
    kept: list[Example] = []
    for at, distance in enumerate(distances):
        made = pair(f"r{at}", answer(y=[1.0]), answer(y=[1.0 + distance]), at=float(at))
        kept = kept_with(kept, made, compare(made.primary, made.shadow, shadow()), shadow(), limit)
    return kept


def test_example_says_who_and_how_and_nothing_of_the_contents() -> None:
    made = example_of(
        pair("r7", iris(), OTHER, at=5.0, values=("acme",), version="iris@1.0.0"), attributes=["x-tenant"]
    )
    assert made == {
        "id": "r7",
        "at": 5.0,
        "distance": made["distance"],
        "outcome": "compared",
        "primary_version": "iris@1.0.0",
        "rescued": False,
        "primary_status": 200,
        "shadow_status": 200,
        "attributes": {"x-tenant": "acme"},
        "differences": [
            "label: 1 of 1 classes differ: 0 became 1",
            "probabilities: 2 elements beyond tolerance; largest difference 0.5, relative 0.6667",
        ],
    }


def test_payloads_are_kept_when_asked_for() -> None:
    made = example_of(pair("r7", iris(), OTHER), keep_payloads=True)
    assert made["request"] == {"x": {"datatype": "FP32", "shape": [1, 2], "data": [5.5, 1.5]}}
    assert made["primary"]["label"]["data"] == [0]
    assert made["shadow"]["label"]["data"] == [1]


def secretive(binary: bool) -> Answer:
    """A request with a public and a secret input, and the secret in its parameters and id as well."""
    data = np.array([SECRET], np.float32).tobytes()
    secret: dict[str, Any] = {"name": "secret", "datatype": "FP32", "shape": [1]}
    secret |= {"parameters": {"binary_data_size": 4}} if binary else {"data": [SECRET]}
    public = {"name": "x", "datatype": "INT64", "shape": [1], "data": [5]}
    document = {"id": str(SECRET), "parameters": {"who": str(SECRET)}, "inputs": [secret, public]}
    head = orjson.dumps(document)
    return Answer(0, head + data, len(head)) if binary else Answer(0, head)


@pytest.mark.parametrize("binary", [False, True])
def test_redacted_input_leaves_no_trace(binary: bool) -> None:
    made = example_of(
        pair(primary=iris(), other=OTHER, request=secretive(binary)), keep_payloads=True, redact=["secret"]
    )
    assert made["request"]["secret"] == {"datatype": "FP32", "shape": [1], "data": REDACTED}
    assert made["request"]["x"]["data"] == [5]
    assert b"31337" not in orjson.dumps(made)


def test_error_that_may_quote_an_input_is_left_out_where_inputs_are_redacted() -> None:
    broken = pair(primary=iris(), other=failed(sentence="input 'secret' is 31337"))
    assert example_of(broken, keep_payloads=True)["shadow"] == "input 'secret' is 31337"
    assert example_of(broken, keep_payloads=True, redact=["secret"])["shadow"] == REDACTED
    assert "shadow" not in example_of(broken)


def test_error_without_a_sentence() -> None:
    for body in (b"{}", b"[]", b'{"error":1}'):
        assert example_of(pair(other=Answer(500, body)), keep_payloads=True)["shadow"] == "(no sentence)"
    assert example_of(pair(other=Answer(500, b"<html>")), keep_payloads=True)["shadow"] == "(not readable)"


@pytest.mark.parametrize(
    ("request_body", "kept"),
    [
        (b"<raw>", "(not readable)"),
        (b" " * (MAX_PAYLOAD_BYTES + 1), "(left out: 16385 bytes)"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1]}]}', "(not readable)"),
    ],
)
def test_payload_that_cannot_be_read_or_is_large_is_left_out(request_body: bytes, kept: str) -> None:
    made = pair(primary=iris(), other=OTHER, request=Answer(0, request_body))
    assert example_of(made, keep_payloads=True)["request"] == kept


def test_payloads_of_every_datatype_are_json() -> None:
    head = orjson.dumps(
        {
            "inputs": [
                {"name": "a", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}},
                {"name": "b", "datatype": "BF16", "shape": [1], "parameters": {"binary_data_size": 2}},
                {"name": "c", "datatype": "BYTES", "shape": [1], "data": ["text"]},
                {"name": "d", "datatype": "BOOL", "shape": [1], "data": [True]},
            ]
        }
    )
    request = Answer(0, head + np.array([np.inf, np.nan]).tobytes() + b"\x80\x3f", len(head))
    made = example_of(pair(primary=iris(), other=OTHER, request=request), keep_payloads=True)
    assert orjson.loads(orjson.dumps(made)) == made
    assert {name: tensor["data"] for name, tensor in made["request"].items()} == {
        "a": [None, None],
        "b": [1.0],
        "c": ["text"],
        "d": [True],
    }


@patient
@given(st.lists(st.sampled_from([0.0, 1e-5, 0.5, 1.0, 2.0, 3.0]), max_size=12), st.integers(0, 4))
def test_kept_are_the_most_different_and_of_equals_the_earliest(distances: list[float], limit: int) -> None:
    ranked = sorted(range(len(distances)), key=lambda at: (-distances[at], at))
    assert [kept["id"] for kept in numbers(distances, limit)] == [f"r{at}" for at in ranked[:limit]]


def test_merging_examples_keeps_the_most_different_of_all() -> None:
    one, other = numbers([3.0, 1.0], 2), numbers([2.0, 0.5], 2)
    assert [kept["distance"] for kept in most_different(one + other, 2)] == [one[0]["distance"], other[0]["distance"]]


def test_request_of_a_shadow_without_payloads_is_never_read() -> None:
    poisoned = pair(primary=iris(), other=OTHER, request=REQUEST._replace(body=b"\x1f\x8bnonsense"))
    assert "request" not in example_of(poisoned)
    assert ShadowSpec(version="iris@1.1.0").keep_payloads is False
