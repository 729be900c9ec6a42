"""What gateways tally, as a judge sees it."""

from collections.abc import Mapping, Sequence

from judging.windows import INVALID_OUTPUT, LOST_ANSWER, Counts
from nstarx.histogram import BUCKETS

NOTHING = (0,) * BUCKETS


def tallied(codes: Mapping[int, int], invalid: int, lost: int, latency: Sequence[int] = NOTHING) -> Counts:
    """Calls by HTTP status, of which `invalid` answers of 200 can't be trusted, and tries that were lost besides."""
    good = codes.get(200, 0) - invalid
    return Counts.of({**codes, 200: good, INVALID_OUTPUT: invalid, LOST_ANSWER: lost}, latency)
