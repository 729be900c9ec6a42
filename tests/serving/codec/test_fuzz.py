"""Whatever bytes arrive, they decode or are refused with 400."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from nstarx.errors import NStarXError
from nstarx.tensors import DTYPES
from serving.codec import Codec
from tests.serving.codec.samples import body, echo, iris, model, tensor, x

CODECS = [
    Codec(iris()),
    Codec(echo("BYTES")),
    Codec(model([tensor(d, d, -1, -1, optional=True) for d in DTYPES], [tensor("y", "FP32", -1)])),
]
LENGTHS = st.none() | st.integers(-1, 300)

HEAD = body(
    x(None, parameters={"binary_data_size": 16}),
    id="7",
    outputs=[{"name": "label", "parameters": {"binary_data": True}}],
    parameters={"timeout": 100, "binary_data_output": True},
)
VALID = [
    (body(x()), None),
    (body(x([[5.1, 3.5, 1.4, 0.2]]), id="7"), None),
    (HEAD + bytes(16), len(HEAD)),
    (body(x(["a"], [1, 1], "BYTES")), None),
    (body(*(x([[0]], [1, 1], d, name=d) for d in DTYPES if d not in ("BOOL", "BYTES"))), None),
]
SNIPPETS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b",",
    b"-",
    b"9" * 30,
    b"1e400",
    b"null",
    b"true",
    b"\xff",
    b"\0",
    b"[" * 2000,
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(sorted(DTYPES)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "shape", "datatype", "data", "parameters"])


def is_decoded_or_refused(request: bytes, json_length: int | None) -> None:
    for codec in CODECS:
        try:
            decoded = codec.decode(request, json_length)
        except NStarXError as error:
            assert error.status == 400  # noqa: PT017 - both ends are right; this one has a rule
        else:
            assert sum(array.size for array in decoded.inputs.values()) <= len(request)


@given(st.binary(max_size=200), LENGTHS)
def test_arbitrary_bytes(request: bytes, json_length: int | None) -> None:
    is_decoded_or_refused(request, json_length)


@given(st.sampled_from(VALID), st.data())
def test_valid_bodies_with_bytes_replaced(valid: tuple[bytes, int | None], data: st.DataObject) -> None:
    request, json_length = valid
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(request)))
        stop = data.draw(st.integers(start, min(len(request), start + 8)))
        request = request[:start] + data.draw(st.sampled_from(SNIPPETS) | st.binary(max_size=4)) + request[stop:]
    is_decoded_or_refused(request, data.draw(st.just(json_length) | LENGTHS))


@given(
    st.dictionaries(KEYS, JSON_VALUES), st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), JSON_VALUES)
)
@example({"shape": [0, 2**63 - 1], "name": "INT8", "datatype": "INT8", "data": []}, {})
@example({"shape": [2**40, 2**40], "name": "INT8", "datatype": "INT8", "data": []}, {})
def test_keys_with_values_of_any_kind(changed: dict[str, Any], options: dict[str, Any]) -> None:
    request = json.dumps({"inputs": [x() | changed], **options}).encode()
    is_decoded_or_refused(request, None)
    is_decoded_or_refused(request + bytes(16), len(request))
