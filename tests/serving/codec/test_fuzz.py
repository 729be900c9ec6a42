"""Whatever bytes arrive, they decode or are refused with 400."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from nstarx.errors import NStarXError
from nstarx.tensors import DTYPES
from serving.codec import Codec
from tests.serving.codec.samples import body, echo, iris, model, tensor, x
from tests.serving.codec.strategies import patient

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


def replaced(request: bytes, data: st.DataObject, parts: st.SearchStrategy[bytes]) -> bytes:
    """The request with up to 8 of its bytes replaced."""
    start = data.draw(st.integers(0, len(request)))
    stop = data.draw(st.integers(start, min(len(request), start + 8)))
    return request[:start] + data.draw(parts) + request[stop:]


def outcome(codec: Codec, request: bytes) -> object:
    """All that decoding gives, comparable."""
    try:
        decoded = codec.decode(request)
    except NStarXError as error:
        return error.sentence
    inputs = {name: (array.dtype, array.shape, array.tolist()) for name, array in decoded.inputs.items()}
    return inputs, decoded.rows, decoded.group, decoded.id, decoded.parameters


@patient
@given(st.binary(max_size=200), LENGTHS)
def test_arbitrary_bytes(request: bytes, json_length: int | None) -> None:
    is_decoded_or_refused(request, json_length)


@patient
@given(st.sampled_from(VALID), st.data())
def test_valid_bodies_with_bytes_replaced(valid: tuple[bytes, int | None], data: st.DataObject) -> None:
    request, json_length = valid
    for _ in range(data.draw(st.integers(1, 3))):
        request = replaced(request, data, st.sampled_from(SNIPPETS) | st.binary(max_size=4))
    is_decoded_or_refused(request, data.draw(st.just(json_length) | LENGTHS))


@patient
@given(
    st.dictionaries(KEYS, JSON_VALUES), st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), JSON_VALUES)
)
@example({"shape": [0, 2**63 - 1], "name": "INT8", "datatype": "INT8", "data": []}, {})
@example({"shape": [2**40, 2**40], "name": "INT8", "datatype": "INT8", "data": []}, {})
def test_keys_with_values_of_any_kind(changed: dict[str, Any], options: dict[str, Any]) -> None:
    request = json.dumps({"inputs": [x() | changed], **options}).encode()
    is_decoded_or_refused(request, None)
    is_decoded_or_refused(request + bytes(16), len(request))


PLAIN = body(x())
ALMOST_PLAIN = [
    body({"data": [1, 2, 3, 4]}),
    b'{"inputs":{"data":[]},' + PLAIN[1:],
    b'{"inputs":[{"data":[]}],' + PLAIN[1:],
    b'{"inputs":[[{"data":[1]}]],' + PLAIN[1:],
    PLAIN.replace(b'"name"', b'"data":[1],"name"'),
    PLAIN.replace(b'"name"', b'"data":{"data":[1]},"name"'),
    PLAIN.replace(b"}]}", b',"data":[1,2,3,4]}]}'),
    PLAIN.replace(b"}]}", b',"name":"x"}]}'),
    PLAIN.replace(b"}]}", b'}],"id":"]}]"}'),
]
PARTS = [b'"data":', b"]}]", b"},{", b'"data":[1,2,3,4]', b'{"inputs":[', b'"name":"x",', *SNIPPETS]


@settings(patient, max_examples=300)
@given(st.sampled_from([PLAIN, *ALMOST_PLAIN]), st.sampled_from([PLAIN, *ALMOST_PLAIN]), st.data())
def test_frame_seen_before_changes_nothing(seen: bytes, request: bytes, data: st.DataObject) -> None:
    codec = Codec(iris())
    outcome(codec, seen)
    assert outcome(codec, request) == outcome(Codec(iris()), request)
    changed = replaced(request, data, st.sampled_from(PARTS))
    assert outcome(codec, changed) == outcome(Codec(iris()), changed)
