"""How many requests a caller of a route may make."""

from typing import Annotated

from pydantic import Field

from nstarx.spec.key import KeySpec
from nstarx.spec.model import Count
from nstarx.spec.record import Record

Many = Annotated[int, Field(ge=1, le=1_000_000_000)]


class RateLimitSpec(Record):
    """A token bucket for each caller, who in any t seconds gets at most burst + t x requests / window_s.

    Each gateway grants its part of it, so a caller that is always sent to the same one may be held to that part.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = "default"
    """What answers call this limit in their RateLimit fields."""
    requests: Many
    """Requests granted in each window."""
    window_s: Annotated[int, Field(ge=1, le=86400)] = 60
    """Length of a window, in whole seconds."""
    burst: Many | None = None
    """Requests that may come at once; null is as many as a window grants."""
    key: KeySpec | None = None
    """Who a caller is; null counts everybody as one. Those without a key are one caller too."""
    max_keys: Count = 100_000
    """Callers remembered. When there are more, one whose bucket is full, or the fullest of a few, is forgotten."""
