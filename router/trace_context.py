"""The header `traceparent` (W3C Trace Context): which trace a request belongs to, and whether it is recorded."""

import re
from typing import NamedTuple

SAMPLED, RANDOM = 1, 2
"""Flags: the caller records this trace; its id is random (level 2)."""
STATE_BYTES = 512
"""A longer `tracestate` is left out, as the standard allows."""

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
