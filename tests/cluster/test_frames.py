"""Frames: whatever way a stream arrives, the same frames come out of it, or a sentence that says what is wrong."""

import contextlib
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.frames import (
    HANDSHAKE_LIMIT,
    HEADER,
    MAGIC,
    NO_JSON_LENGTH,
    NONCE_BYTES,
    PREFACE,
    PROTOCOL_VERSION,
    Frame,
    FrameReader,
    Kind,
    check_hello,
    hello,
    pack,
    proof,
)
from nstarx.errors import LaneError

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
CHALLENGE, OTHER_CHALLENGE = b"c" * NONCE_BYTES, b"d" * NONCE_BYTES
NONCE = b"n" * NONCE_BYTES
REF = "iris@1.0.0"

numbers = st.integers(0, 2**32 - 1)
frames = st.builds(
    lambda kind, flags, status, id, wait, json, payload: (
        len(payload), kind, flags, status, id, wait, json, payload
    ),
    st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), numbers, numbers, numbers, st.binary(max_size=80),
)  # fmt: skip


def on_the_wire(sent: list[Frame]) -> bytes:
    return PREFACE + b"".join(HEADER.pack(*frame[:-1]) + frame[-1] for frame in sent)


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    ends = [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [piece for start, end in zip([0, *ends], ends, strict=False) if (piece := stream[start:end])]


def read(pieces: list[bytes], limit: int = 1 << 20) -> list[Frame]:
    reader = FrameReader(limit)
    return [frame for piece in pieces for frame in reader.feed(piece)]


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 1000), max_size=12))
def test_frames_cut_anywhere_read_back_the_same(sent: list[Frame], cuts: list[int]) -> None:
    assert read(pieces_of(on_the_wire(sent), cuts)) == sent


@given(st.lists(frames, max_size=3))
def test_frames_arrive_byte_by_byte(sent: list[Frame]) -> None:
    stream = on_the_wire(sent)
    assert read([stream[at : at + 1] for at in range(len(stream))]) == sent


@given(st.lists(frames, min_size=1, max_size=3), st.data())
def test_a_frame_is_told_the_moment_it_is_complete_and_not_before(sent: list[Frame], data: st.DataObject) -> None:
    stream = on_the_wire(sent)
    cut = data.draw(st.integers(0, len(stream) - 1))
    complete, end = 0, len(PREFACE)
    for frame in sent:
        end += 20 + len(frame[-1])
        complete += end <= cut
    assert read([stream[:cut]] if cut else []) == sent[:complete]


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=10), st.booleans())
def test_garbage_is_a_lane_error_and_nothing_else(garbage: list[bytes], greeted: bool) -> None:
    reader = FrameReader(1 << 10)
    with contextlib.suppress(LaneError):
        for piece in [PREFACE, *garbage] if greeted else garbage:
            for frame in reader.feed(piece):
                assert frame[0] == len(frame[-1]) <= 1 << 10


def test_limit_holds_to_the_byte() -> None:
    assert read([PREFACE + pack(Kind.REQUEST, payload=b"x" * 100)], limit=100)
    with pytest.raises(LaneError, match="a frame of 101 bytes is over the limit of 100"):
        read([PREFACE + pack(Kind.REQUEST, payload=b"x" * 101)], limit=100)


def test_claimed_length_is_refused_before_its_payload_arrives() -> None:
    claim = HEADER.pack(2**32 - 1, Kind.REQUEST, 0, 0, 1, 0, NO_JSON_LENGTH)
    tracemalloc.start()
    with pytest.raises(LaneError, match="4294967295 bytes"):
        read([PREFACE, *[bytes([byte]) for byte in claim]], limit=1 << 30)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def test_claimed_length_within_the_limit_reserves_nothing() -> None:
    reader = FrameReader(1 << 30)
    tracemalloc.start()
    reader.feed(PREFACE + HEADER.pack(1 << 30, Kind.REQUEST, 0, 0, 1, 0, NO_JSON_LENGTH) + b"a beginning")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def test_large_frame_in_many_pieces_costs_in_proportion_to_its_size() -> None:
    payload = b"x" * (1 << 20)
    stream = PREFACE + pack(Kind.RESPONSE, 7, payload)
    reader = FrameReader(1 << 30)
    joins = _Joins(reader)
    frames = [frame for at in range(0, len(stream), 64) for frame in reader.feed(stream[at : at + 64])]
    assert [frame[-1] for frame in frames] == [payload]
    assert joins.bytes < 2 * len(stream)


class _Joins:
    """Counts the bytes that a reader keeps anew, which is what it has joined before."""

    def __init__(self, reader: FrameReader) -> None:
        self.bytes = 0
        keep = reader._keep

        def counted(data: bytes, at: int) -> None:
            self.bytes += len(data)
            keep(data, at)

        reader._keep = counted  # type: ignore[method-assign]


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"NSXLAMP\x01", b"x"])
def test_another_protocol_is_recognized(start: bytes) -> None:
    with pytest.raises(LaneError, match="does not speak the lane protocol"):
        read([start])


def test_another_version_is_told_with_both_versions() -> None:
    with pytest.raises(LaneError, match=f"speaks lane protocol 9, this side {PROTOCOL_VERSION}"):
        read([MAGIC + b"\x09" + pack(Kind.HELLO)])


def test_another_version_is_told_when_it_comes_piece_by_piece() -> None:
    with pytest.raises(LaneError, match="lane protocol 9"):
        read([MAGIC[:3], MAGIC[3:], b"\x09"])


def test_header_is_what_the_protocol_says() -> None:
    frame = pack(Kind.RESPONSE, 0x01020304, b"yes", status=503, json=2)
    assert frame == struct.pack("<I", 3) + bytes([17, 0]) + struct.pack("<HIII", 503, 0x01020304, 0, 2) + b"yes"


def test_hello_shows_the_key_without_telling_it() -> None:
    payload = hello(KEY, NONCE, CHALLENGE, REF)
    assert check_hello(KEY, CHALLENGE, REF, payload) == NONCE
    assert KEY not in payload
    assert len(payload) < HANDSHAKE_LIMIT


def test_hello_with_another_key_is_refused() -> None:
    with pytest.raises(LaneError, match="does not know this replica's key"):
        check_hello(KEY, CHALLENGE, REF, hello(OTHER_KEY, NONCE, CHALLENGE, REF))


def test_hello_replayed_to_another_challenge_is_refused() -> None:
    with pytest.raises(LaneError, match="does not know this replica's key"):
        check_hello(KEY, OTHER_CHALLENGE, REF, hello(KEY, NONCE, CHALLENGE, REF))


def test_hello_for_another_version_is_told_which_one_is_here() -> None:
    with pytest.raises(LaneError, match=r"this replica serves iris@1\.0\.0"):
        check_hello(KEY, CHALLENGE, REF, hello(KEY, NONCE, CHALLENGE, "iris@2.0.0"))


def test_hello_whose_version_was_changed_on_the_way_is_refused() -> None:
    changed = hello(KEY, NONCE, CHALLENGE, "iris@2.0.0").replace(b"iris@2.0.0", REF.encode())
    with pytest.raises(LaneError, match="does not know this replica's key"):
        check_hello(KEY, CHALLENGE, REF, changed)


@given(st.binary(max_size=100))
def test_hello_of_garbage_is_refused(payload: bytes) -> None:
    with pytest.raises(LaneError):
        check_hello(KEY, CHALLENGE, REF, payload)


def test_one_side_cannot_send_the_other_its_own_proof_back() -> None:
    assert proof(KEY, b"gateway", NONCE, CHALLENGE, b"r") != proof(KEY, b"replica", NONCE, CHALLENGE, b"r")
