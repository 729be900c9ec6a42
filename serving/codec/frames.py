"""Bodies that differ from an earlier one in their data alone.

A client repeats itself: request after request has the same text around other data. A place in a JSON text that takes
one value takes every value, and the text around it means the same each time. So a frame, the text before and after the
data, is read once; of later bodies in the same frame only the data is parsed, which saves a quarter of the time.
"""

from typing import Any, TypeVar

import orjson

Frame = tuple[bytes, bytes]

MAX_FRAME = 1024
"""Bytes of a frame worth keeping."""
MAX_FRAMES = 256
"""Clients choose their frames, so they must be bounded; beyond, learning begins anew."""

BEFORE = b'"data":'
AFTER = b"]}]"

Known = TypeVar("Known")


class Frames(dict[Frame, Known]):
    """Frames seen before, with what is known about the requests in them."""

    def learn(self, frame: Frame, known: Known) -> None:
        """Remember a frame, unless it is too long or doesn't surround data."""
        if sum(map(len, frame)) > MAX_FRAME or not surrounds_data(frame):
            return
        if len(self) >= MAX_FRAMES:
            self.clear()
        self[frame] = known


def cut(body: bytes) -> tuple[Frame, bytes]:
    """A body's frame and data, cut at its first key `data` and at the last place where a list of data may end.

    The data lacks its closing bracket, and is no JSON at all where the body has another form.
    """
    head, _, rest = body.partition(BEFORE)
    data, _, tail = rest.rpartition(AFTER)
    return (head, tail), data


def is_plain(document: object) -> bool:
    """Whether a JSON document is a request of one tensor without parameters, and nothing else."""
    match document:
        case {"inputs": [{"name": _, "shape": _, "datatype": _, "data": _, **others}], **options}:
            return not others and not options
    return False


def surrounds_data(frame: Frame) -> bool:
    """Whether any JSON value in the frame is the data of a plain request.

    Two probes settle it: were their place in a string, a number or another key, data could not come out as both.
    """
    zero, empty = tensor_within(frame, b"[0]"), tensor_within(frame, b"[{}]")
    return zero is not None and empty is not None and zero["data"] == [0] and empty["data"] == [{}]


def tensor_within(frame: Frame, data: bytes = b"[0]") -> dict[str, Any] | None:
    """The tensor of a plain request, were this its data; None where the frame makes no plain request of it."""
    head, tail = frame
    try:
        document = orjson.loads(b"".join((head, BEFORE, data, AFTER[1:], tail)))
    except orjson.JSONDecodeError:
        return None
    return document["inputs"][0] if is_plain(document) else None
