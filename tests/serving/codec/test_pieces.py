"""Long data read piece by piece are what they are when read at once."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstarx.errors import InvalidRequest
from serving.codec import Codec, decoding, pieces
from serving.codec.elements import NUMBERS
from serving.codec.layout import Layout
from tests.serving.codec.samples import body, echo, iris, model, same, tensor, x
from tests.serving.codec.strategies import patient, tensors
from tests.serving.codec.test_fuzz import PARTS, PLAIN, outcome, replaced


@pytest.fixture(autouse=True, scope="module")
def short() -> Any:
    """Everything counts as long, and a piece is a number or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", 5)
        patch.setattr(decoding, "LONG", 0)
        yield


@patient
@given(st.data(), st.sampled_from(sorted(NUMBERS)), st.booleans())
def test_data_in_pieces_are_the_same(data: st.DataObject, datatype: str, nested: bool) -> None:
    array = data.draw(tensors(datatype, json=True, columns=4))
    request = body(x((array if nested else array.ravel()).tolist(), array.shape, datatype))
    decoded = Codec(echo(datatype)).decode(request).inputs["x"]
    assert same(decoded, array)
    assert not decoded.flags.writeable


@settings(patient, max_examples=300)
@given(st.data())
def test_pieces_change_nothing_about_what_is_refused(data: st.DataObject) -> None:
    changed = replaced(PLAIN, data, st.sampled_from(PARTS))
    in_pieces = outcome(Codec(iris()), changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "LONG", 1 << 20)
        assert in_pieces == outcome(Codec(iris()), changed)


def test_long_body_that_leaves_an_input_out_is_refused() -> None:
    codec = Codec(model([tensor("x", "FP32", -1, 4), tensor("z", "FP32", -1, 4)], [tensor("y", "FP32", -1)]))
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="input 'z' is missing"):
            codec.decode(PLAIN)
        assert codec.decode_plain([PLAIN]) is None


WRONG = {
    "one too few": b"[1,2,3",
    "one too many": b"[1,2,3,4,5",
    "a comma at the end": b"[1.00000,2.00000,3.00000,4.00000,",
    "two commas": b"[1,2,,3,4",
    "a boolean": b"[1,2,3,true",
    "a string": b'[1,2,3,"4,5"',
    "rows": b"[[1,2],[3,4]",
    "too large": b"[1e39,2,3,4",
    "no list": b"{1,2,3,4",
    "something before": b"7[1,2,3,4",
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_data_that_are_left_to_the_decoder(data: bytes) -> None:
    layout = Layout((1, 4), 4, 1, ("x", (4,)), list)  # type: ignore[arg-type]
    assert pieces.read_pieces(data, "FP32", layout) is None
    assert pieces.read_pieces(b" \n[1,2,3,4", "FP32", layout) is not None


def test_claimed_size_allocates_nothing() -> None:
    layout = Layout((1, 2**40), 2**40, 1, ("x", (2**40,)), list)  # type: ignore[arg-type]
    assert pieces.read_pieces(b"[1", "FP32", layout) is None
