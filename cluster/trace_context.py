"""A request's place in a trace, as the header `traceparent` (W3C Trace Context) and as lanes carry it."""

import re
from struct import Struct
from typing import NamedTuple

SAMPLED, RANDOM = 1, 2
"""Flags: the caller records this trace; its id is random (level 2)."""
STATE_BYTES = 512
"""A longer `tracestate` is left out, as the standard allows."""

_PLACE = Struct(">QQQB")
PLACE_BYTES = _PLACE.size
"""Before the body of a traced request on a lane: trace id (16 bytes), span id of the call (8), flags (1), as in the
binary form of W3C Trace Context, big-endian."""

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


class TraceContext(NamedTuple):
    """A place in a trace."""

    trace_id: int
    """128 bits, never 0."""
    span_id: int
    """64 bits, never 0."""
    flags: int

    @property
    def sampled(self) -> bool:
        return bool(self.flags & SAMPLED)


def parse_traceparent(header: bytes) -> TraceContext | None:
    """The caller's place in its trace; None where the header is not exactly what the standard says.

    Versions that are not known are read as far as 00 goes, provided that they go on with a dash (W3C, 3.2.2 and 4.3).
    """
    match = _TRACEPARENT.fullmatch(header)
    if not match:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest):
        return None
    known = SAMPLED | RANDOM if version == b"00" else SAMPLED
    context = TraceContext(int(trace_id, 16), int(span_id, 16), int(flags, 16) & known)
    return context if context.trace_id and context.span_id else None


def format_traceparent(context: TraceContext) -> bytes:
    """The header of a request further down."""
    return b"00-%032x-%016x-%02x" % context


def pack_place(context: TraceContext) -> bytes:
    """What stands before the body of a traced request on a lane."""
    return _PLACE.pack(context.trace_id >> 64, context.trace_id & 0xFFFFFFFFFFFFFFFF, context.span_id, context.flags)


def unpack_place(place: bytes) -> TraceContext:
    """The place that a traced request on a lane begins with. Raises struct.error where it is of another length."""
    high, low, span_id, flags = _PLACE.unpack(place)
    return TraceContext(high << 64 | low, span_id, flags)
