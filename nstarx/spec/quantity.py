"""Memory quantities as Kubernetes writes them: `256Mi`, `4Gi`, `500M`, or a number of bytes."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?|)\Z")


def parse_bytes(value: Any) -> int:
    """Bytes of a quantity. Raises ValueError with an example."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = QUANTITY.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"{value!r} is not an amount of memory; write it like 256Mi or 4Gi")
    return int(float(match[1]) * UNITS[match[2]])


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
