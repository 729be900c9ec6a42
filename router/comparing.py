"""Comparing two answers on the event loop: what would hold it up too long is left out."""

from judging.answers import Answer, inflated
from judging.comparison import Comparison, compare, compare_statuses, same_outputs
from nstarx.spec.shadow import ShadowSpec

MOST_BYTES = 256 * 1024
"""Of one answer, once it is plain; comparing two of so many takes about a millisecond."""
MOST_JSON_BYTES = 64 * 1024
"""Of these, JSON, which takes longer to read than tensors in binary."""


def compare_small(primary: Answer, shadow: Answer, spec: ShadowSpec) -> Comparison:
    """As `compare`, but answers that are too large for it are compared by status alone. Those that are the same bytes
    but for names and versions are equal at any size."""
    left, right = _small(primary), _small(shadow)
    if left is not None and right is not None:
        return compare(left, right, spec)
    if primary.status < 400 and shadow.status < 400 and same_outputs(primary, shadow):
        return compare(primary, shadow, spec)
    return compare_statuses(primary.status, shadow.status)


def _small(answer: Answer) -> Answer | None:
    """The answer without its compression; None when it is too large."""
    if len(answer.body) > MOST_BYTES:
        return None
    try:
        plain = inflated(answer, MOST_BYTES)
    except ValueError:
        return None
    json_bytes = len(plain.body) if plain.json_length is None else plain.json_length
    return plain if json_bytes <= MOST_JSON_BYTES else None
