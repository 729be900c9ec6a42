"""Doubles numbers, and misbehaves as told: a model to try canaries, retries, time-outs and demotion with.

Its settings can be changed while it serves; they replace each other as a whole, and counting starts again.
"""

import time
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np

NUMBERS = (int, float)


@dataclass(frozen=True)
class Settings:
    error_rate: float = 0.0
    """Share of runs that fail, from 0 to 1."""
    latency_ms: float = 0.0
    """Time that each run takes besides its work."""
    hang: bool = False
    """Runs don't end until this is false again."""

    def __post_init__(self) -> None:
        if type(self.error_rate) not in NUMBERS or not 0 <= self.error_rate <= 1:
            raise ValueError(f"error_rate: {self.error_rate!r} is not a number from 0 to 1")
        if type(self.latency_ms) not in NUMBERS or not 0 <= self.latency_ms < float("inf"):
            raise ValueError(f"latency_ms: {self.latency_ms!r} is not a number of milliseconds from 0 up")
        if type(self.hang) is not bool:
            raise ValueError(f"hang: {self.hang!r} is neither true nor false")


class Model:
    def __init__(self) -> None:
        self.reconfigure({})

    def reconfigure(self, settings: dict[str, Any]) -> None:
        known = {field.name for field in fields(Settings)}
        for name in settings.keys() - known:
            raise ValueError(f"{name}: is not a setting; use {', '.join(sorted(known))}")
        self._settings = Settings(**settings)
        self._owed = Fraction(0)

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        while self._settings.hang:
            time.sleep(0.01)
        time.sleep(self._settings.latency_ms / 1000)
        if self._fails():
            raise RuntimeError("this model fails on purpose; its setting error_rate is above 0")
        return {"y": inputs["x"] * np.float32(2)}

    def _fails(self) -> bool:
        """Counted in exact fractions, so that 0.1 is one run in ten and not about one in ten."""
        self._owed += Fraction(str(self._settings.error_rate))
        due = self._owed >= 1
        self._owed -= due
        return due
