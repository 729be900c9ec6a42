"""Compression: what was sent comes out, and what can't be read is refused before it costs anything."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.frames import FLAG_ACCEPT_DEFLATE, FLAG_ACCEPT_GZIP, FLAG_DEFLATE, FLAG_GZIP, FLAG_STREAM
from nstarx.errors import InvalidRequest, PayloadTooLarge
from serving.compression import deflate, inflate

Compress = Callable[[bytes], bytes]

WAYS = pytest.mark.parametrize(("compress", "flag"), [(gzip.compress, FLAG_GZIP), (zlib.compress, FLAG_DEFLATE)])
OTHER = {FLAG_GZIP: FLAG_DEFLATE, FLAG_DEFLATE: FLAG_GZIP}


@given(st.binary(max_size=500), st.sampled_from([(FLAG_ACCEPT_GZIP, FLAG_GZIP), (FLAG_ACCEPT_DEFLATE, FLAG_DEFLATE)]))
def test_what_is_compressed_comes_out_again(body: bytes, ways: tuple[int, int]) -> None:
    accepted, expected = ways
    compressed, flag = deflate(body, accepted)
    assert flag == expected
    assert inflate(compressed, flag) == body


def test_client_that_accepts_both_gets_gzip() -> None:
    assert deflate(b"x", FLAG_ACCEPT_GZIP | FLAG_ACCEPT_DEFLATE)[1] == FLAG_GZIP


def test_client_that_accepts_nothing_gets_the_answer_as_it_is() -> None:
    assert deflate(b"x", FLAG_STREAM | FLAG_GZIP) == (b"x", 0)


@WAYS
@pytest.mark.parametrize("limit", [1, 100, 1 << 16, 1_000_003])
def test_limit_holds_to_the_byte(compress: Compress, flag: int, limit: int) -> None:
    assert len(inflate(compress(bytes(limit)), flag, limit)) == limit
    with pytest.raises(PayloadTooLarge, match=f"{limit} bytes"):
        inflate(compress(bytes(limit + 1)), flag, limit)


@given(st.binary(max_size=50), st.integers(1, 400), st.integers(0, 300))
def test_body_over_the_limit_is_told_so_and_never_called_truncated(piece: bytes, times: int, limit: int) -> None:
    body = piece * times
    if len(body) <= limit:
        assert inflate(zlib.compress(body), FLAG_DEFLATE, limit) == body
    else:
        with pytest.raises(PayloadTooLarge):
            inflate(zlib.compress(body), FLAG_DEFLATE, limit)


def test_bomb_is_refused_without_unpacking_it() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(PayloadTooLarge):
        inflate(bomb, FLAG_GZIP, limit=1 << 20)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 << 20


@WAYS
def test_truncated_body_is_refused_wherever_it_was_cut(compress: Compress, flag: int) -> None:
    whole = compress(b"a body of some length, " * 20)
    for end in range(len(whole)):
        with pytest.raises(InvalidRequest, match=r"truncated|Content-Encoding"):
            inflate(whole[:end], flag)


@WAYS
def test_body_in_the_other_container_is_refused(compress: Compress, flag: int) -> None:
    with pytest.raises(InvalidRequest, match="not what Content-Encoding says"):
        inflate(compress(b"body"), OTHER[flag])


@WAYS
def test_what_follows_the_end_is_refused_and_not_lost(compress: Compress, flag: int) -> None:
    with pytest.raises(InvalidRequest, match="goes on after its end"):
        inflate(compress(b"first") + compress(b"second"), flag)


@given(st.binary(max_size=100), st.sampled_from([FLAG_GZIP, FLAG_DEFLATE]))
def test_garbage_is_an_invalid_request_and_nothing_else(garbage: bytes, flag: int) -> None:
    with pytest.raises(InvalidRequest):
        inflate(b"\xff" + garbage, flag)
