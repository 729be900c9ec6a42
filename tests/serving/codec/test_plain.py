"""Plain requests decoded in one go are what each of them is alone, whatever their neighbours wrote."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nstarx.errors import NStarXError
from serving.codec import Codec, stack
from serving.codec.elements import NUMBERS
from tests.serving.codec.samples import body, echo, iris, same, x
from tests.serving.codec.strategies import patient, tensors

numeric = st.sampled_from(sorted(NUMBERS))


def taught(codec: Codec, *bodies: bytes) -> Codec:
    """A codec that has met these bodies, and their frames twice."""
    for each in bodies * 2:
        codec.decode(each)
    return codec


def is_as_each_alone(codec: Codec, fresh: Codec, bodies: list[bytes]) -> bool:
    """Whether they were decoded together; then each is right by itself, and nothing went to another's rows."""
    plain = codec.decode_plain(bodies)
    if plain is None:
        return False
    inputs, rows = plain
    requests = [fresh.decode(each) for each in bodies]
    assert {request.rows for request in requests} == {rows}
    assert same(inputs["x"], stack(requests)["x"])
    assert not inputs["x"].flags.writeable
    return True


@patient
@given(st.data(), numeric, st.integers(1, 4), st.booleans())
def test_requests_together_are_what_each_is_alone(
    data: st.DataObject, datatype: str, columns: int, nested: bool
) -> None:
    rows = data.draw(st.integers(1, 3))
    same_shape = tensors(datatype, json=True, columns=columns).filter(lambda array: len(array) == rows)
    arrays = data.draw(st.lists(same_shape, min_size=1, max_size=5))
    bodies = [body(x((a if nested else a.ravel()).tolist(), a.shape, datatype)) for a in arrays]
    assert is_as_each_alone(taught(Codec(echo(datatype)), bodies[0]), Codec(echo(datatype)), bodies)


FRAMES = {"flat": body(x()), "rows": body(x([[5.1, 3.5, 1.4, 0.2]])), "two rows": body(x([[1, 2, 3, 4]] * 2, [2, 4]))}
PIECES = [
    b"[",
    b"]",
    b"],[",
    b",",
    b"1",
    b"-",
    b"e5",
    b" ",
    b"true",
    b"null",
    b'"',
    b'"a"',
    b"{}",
    b"",
    b"1,2",
    b"]]",
    b"[[",
]


@settings(patient, max_examples=400)
@given(st.sampled_from(sorted(FRAMES)), st.lists(st.lists(st.sampled_from(PIECES), max_size=9), min_size=1, max_size=3))
@example("flat", [[b"1,2"], [b"3,4,5,6,7,8"]])
@example("flat", [[b"1,2,3,4],[5,6,7,8"], [b""]])
@example("flat", [[b"1,2,[3"], [b"4],5,6"]])
@example("rows", [[b"[1,2,3,4],[5,6,7,8]"], [b""]])
@example("rows", [[b"[1,2,3,4"], [b"5],6,7,8"]])
@example("rows", [[b"[1,2],[3,4]"], [b"[5,6,7,8]"]])
@example("two rows", [[b"[1,2,3],[4,5,6,7,8]"], [b"[1,2,3,4],[5,6,7,8]"]])
@example("two rows", [[b"[1,2,3,4]"], [b"[1,2,3,4],[1,2,3,4],[1,2,3,4]"]])
def test_data_that_only_together_would_be_right_are_never_taken(frame: str, parts: list[list[bytes]]) -> None:
    good = FRAMES[frame]
    start, stop = good.index(b"[", good.index(b'"data"')) + 1, good.rindex(b"]}]")
    bodies = [good[:start] + b"".join(part) + good[stop:] for part in parts]
    try:
        is_as_each_alone(taught(Codec(iris()), good), Codec(iris()), bodies)
    except NStarXError as error:
        pytest.fail(f"taken together, though one alone is refused: {error}")


NOT_PLAIN: dict[str, list[bytes]] = {
    "an id": [body(x()), body(x(), id="7")],
    "another shape": [body(x()), body(x([1] * 8, [2, 4]))],
    "another frame": [body(x()), json.dumps({"inputs": [x()]}, separators=(",", ":")).encode()],
    "a boolean": [body(x()), body(x([True, 1, 2, 3]))],
    "a string": [body(x()), body(x(["1", 1, 2, 3]))],
    "a number too large": [body(x()), body(x([1e39, 1, 2, 3]))],
    "a number missing": [body(x()), body(x([1, 2, 3]))],
    "flat and rows": [body(x()), body(x([[5.1, 3.5, 1.4, 0.2]]))],
    "nothing": [body(x()), b""],
}


@pytest.mark.parametrize("bodies", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_bodies_that_must_be_decoded_each_by_itself(bodies: list[bytes]) -> None:
    codec = taught(Codec(iris()), body(x()))
    assert codec.decode_plain(bodies) is None
    assert codec.decode_plain(bodies[::-1]) is None
    assert codec.decode_plain(bodies[:1] * 3) is not None


@pytest.mark.parametrize(("datatype", "value"), [("BOOL", True), ("BYTES", "a"), ("BF16", 1.0)])
def test_what_is_not_packed_as_numbers_is_decoded_each_by_itself(datatype: str, value: Any) -> None:
    request = body(x([value], [1, 1], datatype))
    assert taught(Codec(echo(datatype)), request).decode_plain([request]) is None


def test_frame_is_unknown_until_it_has_been_decoded() -> None:
    codec = Codec(iris())
    assert codec.decode_plain([body(x())]) is None
    assert taught(codec, body(x())).decode_plain([body(x())]) is not None


def test_version_that_does_not_batch_decodes_one_at_a_time() -> None:
    codec = taught(Codec(iris(max_batch_size=1)), body(x()))
    plain = codec.decode_one(body(x()))
    assert plain is not None
    assert plain[1] == 0
    assert plain[0]["x"].tolist() == [[np.float32(value) for value in (5.1, 3.5, 1.4, 0.2)]]
