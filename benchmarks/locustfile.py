"""Realistic users: several models, JSON and binary tensors, time to think, and a look at every answer.

    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8080                 # web page at http://127.0.0.1:8089
    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8080 --headless --users 100 --spawn-rate 20 --run-time 1m

An answer that is wrong counts as a failure in locust's report, like one that doesn't come. This is for finding out how the
gateway bears mixed traffic; for its speed see compare.py, because locust itself is slower than the gateway.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from locust import FastHttpUser, between, task

from nstarx.tensors import DTYPES

Tensors = dict[str, np.ndarray]
Check = Callable[[Tensors], str]
"""Says what is wrong with the outputs; nothing when they are right."""

FLOWERS = {0: [5.1, 3.5, 1.4, 0.2], 1: [6.0, 2.9, 4.5, 1.5], 2: [6.3, 3.3, 6.0, 2.5]}
"""Flowers that every version of iris names alike, by label."""

DIGITS = {
    0: "00059d910000daf550000f2f20b8000408c0000588000598000004b01c700002e5ac0000006da000",
}


@dataclass(frozen=True)
class Question:
    """One inference request and how to judge its answer."""

    model: str
    name: str
    datatype: str
    tensor: np.ndarray
    check: Check
