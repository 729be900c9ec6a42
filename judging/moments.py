"""Sufficient statistics of a metric: what gateways count, and what every verdict is computed from."""

import math
from dataclasses import dataclass
from typing import Any

RESOLUTION = 1e-12
"""Spread below this part of the mean square is lost in the rounding of the sums."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Number, sum and sum of squares of observations. Adding two is as if all had been observed in one place."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def observed(self, value: float) -> "Moments":
        """With one observation more."""
        return Moments(self.n + 1, self.total + value, self.squares + value * value)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """NaN without observations."""
        return self.total / self.n if self.n else math.nan

    @property
    def variance(self) -> float:
        """Unbiased sample variance; 0 where there is none, or too little to be seen beside the size of the values."""
        if self.n < 2:
            return 0.0
        square = self.squares / self.n
        spread = square - self.mean**2
        return spread * self.n / (self.n - 1) if spread > RESOLUTION * square else 0.0

    def to_json(self) -> list[float]:
        return [self.n, self.total, self.squares]

    @classmethod
    def from_json(cls, document: Any) -> "Moments":
        n, total, squares = document
        return cls(int(n), float(total), float(squares))
