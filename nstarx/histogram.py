"""Latency histograms that cost a handful of operations per observation.

Buckets are log-linear, four to each power of two of nanoseconds, so that a quantile is right within 13 %.
"""

from collections.abc import Iterable, Sequence

BUCKETS = 4 * 42
"""Up to 2**42 ns, a little over an hour; longer times count as that."""


def bucket_of(nanoseconds: int) -> int:
    """The bucket of a duration: its power of two, and the quarter of that octave it falls into."""
    octave = nanoseconds.bit_length()
    if octave < 3:
        return 0
    return octave * 4 + ((nanoseconds >> (octave - 3)) & 3) if octave < 42 else BUCKETS - 1


def upper_bound(bucket: int) -> int:
    """The smallest number of nanoseconds above everything in a bucket."""
    octave, quarter = divmod(bucket, 4)
    return (5 + quarter) << (octave - 3) if octave >= 3 else 4


BOUNDS = tuple(upper_bound(bucket) for bucket in range(BUCKETS))


def quantile(counts: Sequence[int], q: float) -> float | None:
    """The q-quantile in seconds, interpolated inside its bucket; None without observations."""
    rank = q * sum(counts)
    if not rank:
        return None
    for bucket, count in enumerate(counts):
        if count and rank <= count:
            low = BOUNDS[bucket - 1] if bucket else 0
            return (low + (BOUNDS[bucket] - low) * rank / count) / 1e9
        rank -= count
    return BOUNDS[-1] / 1e9


def merged(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of several histograms."""
    return [sum(column) for column in zip(*histograms, strict=True)] or [0] * BUCKETS


EXPOSED = tuple(range(17 * 4 - 1, 36 * 4, 4))
"""Buckets whose bounds Prometheus sees: every power of two from 2**16 ns (66 µs) to 2**35 ns (34 s)."""


def cumulative(counts: Sequence[int]) -> list[tuple[float, int]]:
    """(upper bound in seconds, observations at or below it) for the exposed buckets; the rest is above them all."""
    total, last, pairs = 0, 0, []
    for bucket in EXPOSED:
        total += sum(counts[last : bucket + 1])
        last = bucket + 1
        pairs.append((BOUNDS[bucket] / 1e9, total))
    return pairs
