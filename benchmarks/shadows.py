"""What a shadow costs the primary's clients: latency without one, with a healthy one, and with one that hangs.

One gateway has three routes to one version of iris: one without a shadow, one whose requests are all copied to a
healthy shadow, and one whose shadow never answers. Requests arrive at a fixed mean rate that doesn't wait for answers
(Poisson), for a second on each route by turns, in another order every round. What is compared is the 99th percentile of
a second, the median of all rounds, so that a machine that does something else for a while decides nothing; with 95 %
intervals by bootstrap over rounds. Run as `python -m benchmarks.shadows`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any

import uvloop
import yaml

from benchmarks import processes, report
from benchmarks.contenders import ContenderUnavailable
from benchmarks.contenders.contender import FIRST_REQUEST, PATH, ROOT, START_TIMEOUT_S, free_port
from benchmarks.contenders.nstarx import NStarX
from benchmarks.open_loop import Connections
from benchmarks.python_model import write_model
from nstarx.client import Admin

PRIMARY, HEALTHY, HANGING = "iris@1.0.0", "iris@1.1.0", "iris@9.0.0"
HANGS = "import threading\nclass Model:\n    def infer(self, inputs):\n        threading.Event().wait()\n"
VARIANTS = {"no shadow": "", "healthy shadow": "/healthy", "hanging shadow": "/hanging"}
"""Title to path prefix."""
BOUNDS = {"healthy shadow": 1.10, "hanging shadow": 1.10}
BLOCK_S = 1.0
"""Time on one route before it is another's turn."""
WARM_UP_S = 2.0
SETTLE_S = 5.0
"""After everything is up, before the first request."""
RESAMPLES = 2000

Rounds = list[list[float]]
"""Latencies in seconds, round by round."""


@dataclass(frozen=True)
class Cost:
    """One variant beside that without a shadow."""

    title: str
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    ratio: float
    """Of the 99th percentiles, over that without a shadow."""
    low: float
    high: float
    copied: float | None
    """Share of the requests that were copied; None without a shadow."""


def main() -> int:
    options = arguments().parse_args()
    machine = report.machine(processes.pin(options.cpus))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            costs = measure(Path(folder), options)
        except ContenderUnavailable as error:
            print(error)
            return 1
    text = f"{caption(machine, options)}\n\n{costs_table(costs)}"
    report.save(options.output, "shadows", {"machine": machine, "costs": [asdict(cost) for cost in costs]}, text)
    print(f"\n{text}")
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="seconds on each route, by turns (default: 60)")
    parser.add_argument("--rate", type=float, default=300, help="requests per second (default: 300)")
    parser.add_argument("--connections", type=int, default=32, help="kept open (default: 32)")
    parser.add_argument(
        "--prefer", action="store_true", help="let server and load generator run before all else on the machine (root)"
    )
    parser.add_argument("--cpus", type=int, default=2, help="CPUs for server and load generator (default: 2)")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the results")
    return parser


def measure(folder: Path, options: argparse.Namespace) -> list[Cost]:
    gateway = NStarX(configuration(folder), {"PYTHONPATH": str(ROOT)})
    with gateway.start() as server, Admin(gateway.admin_url) as admin:
        wait_for_replicas(admin)
        if options.prefer:
            processes.prefer([*(process.pid for process in server.processes()), os.getpid()])
        seen, failed = uvloop.run(load(gateway.port(), options))
        time.sleep(2)  # Reports are a second old.
        copied = {row["version"]: 1 - row["dropped"] / row["sampled"] for row in admin.shadows()}
    shares = {"healthy shadow": copied[HEALTHY], "hanging shadow": copied[HANGING]}
    return [cost(title, seen, failed[title], shares.get(title)) for title in VARIANTS]


def configuration(folder: Path) -> Path:
    """A configuration whose three routes differ in their shadow alone, with a repository beside it."""
    repository = folder / "models"
    repository.mkdir()
    (repository / "iris").mkdir()
    for version in ("1.0.0", "1.1.0"):
        (repository / "iris" / version).symlink_to(ROOT / "models" / "iris" / version)
    write_hanging(repository / "iris" / "9.0.0", ROOT / "models" / "iris" / "1.0.0" / "model.yaml")
    shadows = {
        "": [],
        "/healthy": [{"version": HEALTHY}],
        "/hanging": [{"version": HANGING, "timeout_s": 1}],
    }
    split = {"weighted": {PRIMARY: 1}}
    document = {
        "repository": str(repository),
        "gateway": {"port": free_port(), "admin_port": free_port()},
        "versions": [{"version": version} for version in (PRIMARY, HEALTHY, HANGING)],
        "routes": [{"model": "iris", "path_prefix": p, "split": split, "shadows": s} for p, s in shadows.items()],
    }
    config = folder / "shadows.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


def wait_for_replicas(admin: Admin) -> None:
    """Until every version can be copied to. Raises ContenderUnavailable after a while."""
    until = time.monotonic() + START_TIMEOUT_S
    while len(admin.status()["versions"]) < len((PRIMARY, HEALTHY, HANGING)):
        if time.monotonic() > until:
            raise ContenderUnavailable("not every version came up")
        time.sleep(0.2)
    time.sleep(SETTLE_S)


def write_hanging(folder: Path, like: Path) -> None:
    """A version with another's signature that never answers, and that nobody takes for broken."""
    signature = {key: value for key, value in yaml.safe_load(like.read_text()).items() if key in ("inputs", "outputs")}
    write_model(folder, HANGS, limits={"hang_timeout_s": 86400}, **signature)


async def load(port: int, options: argparse.Namespace) -> tuple[dict[str, Rounds], dict[str, int]]:
    """Latencies by variant and round, and the answers of each variant that were not 200."""
    seen: dict[str, Rounds] = {title: [] for title in VARIANTS}
    failed = dict.fromkeys(VARIANTS, 0)
    orders = list(permutations(VARIANTS))
    async with Connections(port, options.connections) as connections:
        for title in VARIANTS:
            await connections.run(request(VARIANTS[title]), options.rate, WARM_UP_S, Random(0))
        for number in range(options.rounds):
            for title in orders[number % len(orders)]:
                block = await connections.run(request(VARIANTS[title]), options.rate, BLOCK_S, Random(number))
                seen[title].append(block.latencies)
                failed[title] += block.failed
            print(f"round {number + 1} of {options.rounds}", flush=True)
    return seen, failed


def request(prefix: str) -> bytes:
    head = f"POST {prefix}{PATH} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(FIRST_REQUEST)}\r\n\r\n"
    return head.encode() + FIRST_REQUEST


def cost(title: str, seen: dict[str, Rounds], failed: int, copied: float | None) -> Cost:
    rounds = seen[title]
    tails, plain = ([percentile(block, 99) for block in blocks] for blocks in (rounds, seen["no shadow"]))
    low, high = interval(tails, plain, Random(1))
    return Cost(
        title=title,
        requests=sum(map(len, rounds)),
        failed=failed,
        p50_ms=median(percentile(block, 50) for block in rounds) * 1000,
        p99_ms=median(tails) * 1000,
        ratio=median(tails) / median(plain),
        low=low,
        high=high,
        copied=copied,
    )


def percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def interval(
    tails: Sequence[float], plain: Sequence[float], random: Random, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """A 95 % interval of the ratio of two medians: rounds are drawn again and again, both sides of a round together."""
    ratios = []
    for _ in range(resamples):
        drawn = random.choices(range(len(tails)), k=len(tails))
        ratios.append(median(tails[number] for number in drawn) / median(plain[number] for number in drawn))
    cuts = quantiles(ratios, n=40, method="inclusive")
    return cuts[0], cuts[-1]


def caption(machine: dict[str, Any], options: argparse.Namespace) -> str:
    date, cpus, average = machine["when"][:10], len(machine["cpus_used"]), machine["load_average_before"]
    return (
        f"Measured on {date} on {cpus} CPUs ({machine['cpu']}) shared by server and load generator, load average "
        f"{average:.1f} before it; {options.rate:g} requests/s, {options.rounds} rounds of a second each"
        f"{', both before all else on the machine' if options.prefer else ''}."
    )


def costs_table(costs: Sequence[Cost]) -> str:
    head = [
        "route",
        "requests",
        "failed",
        "copied",
        "p50 ms",
        "p99 ms",
        "p99, over no shadow",
        "95 % interval",
        "bound",
        "met",
    ]
    return report.table(head, map(_row, costs))


def _row(cost: Cost) -> list[str]:
    bound = BOUNDS.get(cost.title)
    copied = "" if cost.copied is None else f"{cost.copied:.1%}"
    shown = [cost.title, f"{cost.requests:,}", str(cost.failed), copied, f"{cost.p50_ms:.2f}", f"{cost.p99_ms:.2f}"]
    if bound is None:
        return [*shown, "", "", "", ""]
    met = "yes" if cost.ratio <= bound else "no"
    return [*shown, f"{cost.ratio:.2f}x", f"{cost.low:.2f} to {cost.high:.2f}", f"≤ {bound:g}x", met]


if __name__ == "__main__":
    sys.exit(main())
