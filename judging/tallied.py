"""What gateways tally, as a judge sees it."""

from collections.abc import Mapping, Sequence

from judging.windows import INVALID_OUTPUT, LOST_ANSWER, Counts
from nstarx.histogram import BUCKETS

NOTHING = (0,) * BUCKETS
NOBODY: Mapping[int, int] = {}


def tallied(
    codes: Mapping[int, int],
    invalid: int,
    lost: int,
    latency: Sequence[int] = NOTHING,
    spared: Mapping[int, int] = NOBODY,
) -> Counts:
    """Calls by HTTP status, of which `invalid` answers of 200 can't be trusted, and replicas that were lost besides.

    `spared` are failed calls that don't count, by status or INVALID_OUTPUT: another version still answers them, or has
    failed at them too.
    """
    ended = {**codes, 200: codes.get(200, 0) - invalid, INVALID_OUTPUT: invalid, LOST_ANSWER: lost}
    for status, number in spared.items():
        ended[status] -= number
    return Counts.of(ended, latency)
