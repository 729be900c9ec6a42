"""What a second replica beside a slow one saves: the longest latencies with one of three replicas slowed tenfold.

Requests come at random at a steady rate, whatever the answers take (Poisson), and their latency counts from when they
were due. The same cluster answers by each policy in turn: by load alone, with fewer requests for slow replicas, with
hedges, with both, and with ejection besides. Run as `python -m benchmarks.hedging`.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import processes, report
from benchmarks.contenders import ContenderUnavailable
from benchmarks.contenders.contender import ROOT, free_port
from benchmarks.contenders.nstarx import NStarX
from benchmarks.python_model import ONE_ROW, write_model
from nstarx.client import Admin

REF = "uneven@1.0.0"
PATH = "/v2/models/uneven/infer"
BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
MODEL = '''"""Takes 5 ms, more or less; in the first process that loads it, ten times as long."""

import asyncio
import os
from pathlib import Path
from random import Random


class Model:
    def __init__(self):
        self._random = Random(os.getpid())
        try:
            (Path(__file__).parent / "claimed").touch(exist_ok=False)
            self._mean_s = 0.05
        except FileExistsError:
            self._mean_s = 0.005

    async def infer(self, inputs):
        await asyncio.sleep(self._mean_s * self._random.lognormvariate(0, 0.3))
        return {"y": inputs["x"] * 2}
'''
BY_LOAD = {"latency_bias": 0, "ejection": None}
WITH_BIAS = {"ejection": None}
POLICIES: dict[str, dict[str, Any]] = {
    "by load alone": {"balancing": BY_LOAD},
    "fewer requests for slow replicas": {"balancing": WITH_BIAS},
    "hedges": {"balancing": BY_LOAD, "hedge": {}},
    "both": {"balancing": WITH_BIAS, "hedge": {}},
    "both, and ejection": {"hedge": {}},
}
"""What a route says besides its split."""
PLAIN, GOAL = "by load alone", "both"
MOST_OF_P99, MOST_EXTRA = 0.5, 0.05
"""What the longest latencies may be of those by load alone, and what may be spent on it, as a share of the calls."""
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REPORTED_S = 1.2
"""Until the gateway has learned, or reported, what it has counted."""


@dataclass(frozen=True)
class Measured:
    """One policy, one repetition."""

    policy: str
    p50_ms: float
    p99_ms: float
    failed: int
    calls: int
    extra: float
    """Calls that hedges added, as a share."""


@dataclass
class Seen:
    """What clients have seen."""

    latencies: list[float] = field(default_factory=list)
    """In seconds."""
    failed: int = 0


def main() -> int:
    options = arguments().parse_args()
    machine = report.machine(processes.pin(options.cpus))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        gateway = NStarX(configuration(Path(folder)))
        try:
            with gateway.start():
                seen = asyncio.run(measured(gateway, options))
        except ContenderUnavailable as error:
            print(error)
            return 1
    text = f"{report.caption(machine, options.seconds, options.repetitions)}\n\n{policies_table(seen)}"
    report.save(options.output, "hedging", {"machine": machine, "measured": [asdict(one) for one in seen]}, text)
    print(f"\n{text}")
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="length of one measurement (default: 8)")
    parser.add_argument("--repetitions", type=int, default=3, help="measurements of each policy (default: 3)")
    parser.add_argument("--rate", type=int, default=300, help="requests per second (default: 300)")
    parser.add_argument("--warm-up", type=float, default=4.0, help="seconds before each measurement (default: 4)")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs for servers and load (default: 2)")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the results")
    return parser


def configuration(folder: Path) -> Path:
    """Three replicas of the model, which is written to `folder`. Iris says when all is up."""
    repository = folder / "models"
    limits = {"max_concurrent_runs": 8}
    write_model(repository / "uneven" / "1.0.0", MODEL, limits=limits, resources={"cpu": 0.1}, **ONE_ROW)
    (repository / "iris").mkdir()
    (repository / "iris" / "1.0.0").symlink_to(ROOT / "models" / "iris" / "1.0.0")
    document = {
        "repository": str(repository),
        "gateway": {"port": free_port(), "admin_port": free_port()},
        "versions": [{"version": REF, "replicas": 3}, {"version": "iris@1.0.0"}],
        "routes": [route(PLAIN)],
    }
    config = folder / "hedging.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


def route(policy: str) -> dict[str, Any]:
    return {"model": "uneven", "split": {"weighted": {REF: 1}}, "demotion": None, **POLICIES[policy]}


async def measured(gateway: NStarX, options: argparse.Namespace) -> list[Measured]:
    """Every policy by turns, in the opposite order in every other repetition."""
    found = []
    with Admin(gateway.admin_url) as admin:
        await asyncio.to_thread(wait_until_served, admin)
        for repetition in range(options.repetitions):
            for policy in POLICIES if repetition % 2 else reversed(POLICIES):
                found.append(await of_policy(policy, gateway.port(), admin, options))
                print(found[-1], flush=True)
    return found


def wait_until_served(admin: Admin) -> None:
    while {"version": REF, "replicas": 3} not in [
        {name: version[name] for name in ("version", "replicas")} for version in admin.status()["versions"]
    ]:
        time.sleep(0.2)


async def of_policy(policy: str, port: int, admin: Admin, options: argparse.Namespace) -> Measured:
    """Let the gateway learn, then count."""
    await asyncio.to_thread(admin.apply_routes, {"routes": [route(policy)]})
    random = Random(1)
    await ask(port, options.rate, options.warm_up, random)
    before = await asyncio.to_thread(counted, admin)
    seen = await ask(port, options.rate, options.seconds, random)
    await asyncio.sleep(REPORTED_S)
    calls, hedges = (now - then for now, then in zip(await asyncio.to_thread(counted, admin), before, strict=True))
    latencies = sorted(seen.latencies)
    return Measured(
        policy=policy,
        p50_ms=1000 * latencies[len(latencies) // 2],
        p99_ms=1000 * latencies[int(len(latencies) * 0.99)],
        failed=seen.failed,
        calls=calls,
        extra=hedges / calls,
    )


def counted(admin: Admin) -> tuple[int, int]:
    """Calls of the version so far, and hedges among them."""
    samples = [
        sample
        for family in text_string_to_metric_families(admin.ask("GET", "/metrics").text)
        for sample in family.samples
        if sample.labels.get("version") == REF
    ]
    calls = sum(sample.value for sample in samples if sample.name == "nstarx_requests_total")
    return int(calls), int(sum(sample.value for sample in samples if sample.name == "nstarx_hedges_total"))


async def ask(port: int, rate: float, seconds: float, random: Random) -> Seen:
    """Requests at random, each on a connection that no other one uses meanwhile."""
    seen, asked = Seen(), []
    idle: list[Connection] = []
    due, end = time.perf_counter(), time.perf_counter() + seconds
    while (due := due + random.expovariate(rate)) < end:
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        asked.append(asyncio.create_task(one(port, due, idle, seen)))
    await asyncio.gather(*asked)
    for _, writer in idle:
        writer.close()
    return seen


async def one(port: int, due: float, idle: list[Connection], seen: Seen) -> None:
    reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    writer.write(head.encode() + BODY)
    answer = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    seen.latencies.append(time.perf_counter() - due)
    seen.failed += answer[9:12] != b"200"
    idle.append((reader, writer))


def policies_table(found: Sequence[Measured]) -> str:
    """Medians of each policy's measurements, and whether the goal is met."""
    plain = _of(found, PLAIN, "p99_ms")
    head = ["policy", "p50 ms", "p99 ms", "of p99 by load alone", "extra calls", "failed", "met"]
    return report.table(head, (_row(found, policy, plain) for policy in POLICIES))


def _row(found: Sequence[Measured], policy: str, plain: float) -> list[str]:
    p99, extra = _of(found, policy, "p99_ms"), _of(found, policy, "extra")
    met = ("yes" if p99 <= MOST_OF_P99 * plain and extra <= MOST_EXTRA else "no") if policy == GOAL else ""
    failed = sum(one.failed for one in found if one.policy == policy)
    p50 = f"{_of(found, policy, 'p50_ms'):.1f}"
    return [policy, p50, f"{p99:.1f}", f"{p99 / plain:.0%}", f"{extra:.1%}", str(failed), met]


def _of(found: Sequence[Measured], policy: str, name: str) -> float:
    return float(median(getattr(one, name) for one in found if one.policy == policy))


if __name__ == "__main__":
    sys.exit(main())
