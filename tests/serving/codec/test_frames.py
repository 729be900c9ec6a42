"""Which frames are remembered, and how many."""

import pytest

from nstarx.errors import InvalidRequest
from serving.codec import Codec
from serving.codec.frames import MAX_FRAME, MAX_FRAMES, Frames, cut, surrounds_data
from tests.serving.codec.samples import body, iris, x

PLAIN = body(x())

SURROUNDS: dict[str, tuple[bytes, bool]] = {
    "plain": (PLAIN, True),
    "data first": (b'{"inputs":[{"data":[1],"name":"x","shape":[1,4],"datatype":"FP32"}]}', False),
    "spaces": (PLAIN.replace(b"}]}", b"}] }\n"), True),
    "with id": (body(x(), id="7"), False),
    "with parameters": (body(x(parameters={})), False),
    "data twice": (PLAIN.replace(b'"name"', b'"data":[1],"name"'), False),
    "data in a string": (PLAIN.replace(b'"FP32"', b'"\\"data\\":[]}]"'), True),
    "inputs twice": (b'{"inputs":{"data":[]},' + PLAIN[1:], False),
    "later inputs win": (PLAIN[:-1] + b',"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[0]} ]}', False),
    "nothing": (b"", False),
}


@pytest.mark.parametrize(("request_body", "expected"), SURROUNDS.values(), ids=SURROUNDS)
def test_frame_of(request_body: bytes, expected: bool) -> None:
    frame, _ = cut(request_body)
    assert surrounds_data(frame) is expected


def test_frames_are_bounded() -> None:
    frames: Frames[int] = Frames()
    for n in range(MAX_FRAMES * 2 + 3):
        frame, _ = cut(body(x(shape=[n, 4])))
        frames.learn(frame, n)
        assert frames[frame] == n
    assert len(frames) == 3


def test_long_frame_is_not_kept() -> None:
    frames: Frames[int] = Frames()
    frames.learn(cut(PLAIN + b" " * MAX_FRAME)[0], 1)
    assert not frames


def test_request_that_names_data_twice_teaches_nothing() -> None:
    codec = Codec(iris())
    codec.decode(PLAIN.replace(b'"name"', b'"data":[1],"name"'))
    with pytest.raises(InvalidRequest, match="must have a name"):
        codec.decode(body({"data": [1, 2, 3, 4]}).replace(b'"data": ', b'"data":'))
