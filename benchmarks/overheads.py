"""What this gateway's own features cost: the same gateway with and without them, in one run.

Each pair differs in one thing. Its two variants are measured by turns, in the opposite order in every other repetition,
and each repetition gives one ratio of their throughputs, so that a machine that slows down slows both. Run as
`python -m benchmarks.overheads`.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks import processes, report, wrk
from benchmarks.contenders import ContenderUnavailable
from benchmarks.contenders.contender import ROOT
from benchmarks.contenders.nstarx import CONFIG, NStarX
from benchmarks.measurement import measure
from benchmarks.wrk import LoadFailed

WITHOUT_ACCOUNTING: dict[str, str] = {}
"""Variables that switch split, metrics and error windows off. While the gateway has no such switch this is empty, and
the pair is reported as not measured."""


@dataclass(frozen=True)
class Variant:
    """One way to start the gateway."""

    title: str
    config: Path = CONFIG
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Pair:
    """The gateway with a feature and without it."""

    title: str
    plain: Variant
    loaded: Variant
    may_cost: float
    """Share of the plain variant's throughput that the feature may take."""

    @property
    def measurable(self) -> bool:
        """Whether the variants differ at all: comparing a gateway with itself would pass noise off as a result."""
        return (self.plain.config, self.plain.variables) != (self.loaded.config, self.loaded.variables)


def pairs(folder: Path) -> list[Pair]:
    """Everything that is measured; configurations that are made for it go to `folder`."""
    return [
        Pair(
            "split, metrics and error windows",
            plain=Variant("without", variables=WITHOUT_ACCOUNTING),
            loaded=Variant("with"),
            may_cost=0.15,
        ),
        Pair(
            "1,000 routes",
            plain=Variant("1 route"),
            loaded=Variant("1,000 routes", config=with_routes(1000, folder)),
            may_cost=0.03,
        ),
    ]


def with_routes(count: int, folder: Path) -> Path:
    """The benchmark's configuration with further routes to the same version, `count` in all."""
    document = yaml.safe_load(CONFIG.read_text())
    document["repository"] = str(ROOT / document["repository"])
    first = document["routes"][0]
    document["routes"] += [first | {"model": f"iris-{number:04}"} for number in range(1, count)]
    config = folder / f"routes-{count}.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


@dataclass(frozen=True)
class Cost:
    """Throughputs of a pair, repetition by repetition."""

    pair: str
    may_cost: float
    plain: list[float]
    """Requests per second without the feature."""
    loaded: list[float]
    """Requests per second with it, in the same repetitions."""

    @property
    def share(self) -> float | None:
        """Median share of the throughput that the feature takes; below 0 when noise outweighs it, None unmeasured."""
        if not self.plain:
            return None
        return 1 - median(loaded / plain for plain, loaded in zip(self.plain, self.loaded, strict=True))


def main() -> int:
    options = arguments().parse_args()
    if not wrk.installed():
        print("Skipped: the load generator wrk is not installed (Debian: apt-get install wrk).")
        return 0
    machine = report.machine(processes.pin(options.cpus))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            costs = [cost(pair, options) for pair in pairs(Path(folder))]
        except (ContenderUnavailable, LoadFailed) as error:
            print(error)
            return 1
    publish(costs, machine, options)
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (default: 5)")
    parser.add_argument("--repetitions", type=int, default=5, help="ratios per pair (default: 5)")
    parser.add_argument("--connections", type=int, default=128, help="load (default: 128)")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs for server and load generator (default: 2)")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the results")
    return parser


def cost(pair: Pair, options: argparse.Namespace) -> Cost:
    seen: dict[Variant, list[float]] = {pair.plain: [], pair.loaded: []}
    repetitions = range(options.repetitions) if pair.measurable else []
    for repetition in repetitions:
        for variant in in_turn(pair, repetition):
            seen[variant].append(throughput(variant, options))
            print(f"{pair.title}, {variant.title}: {seen[variant][-1]:,.0f} requests/s", flush=True)
    return Cost(pair.title, pair.may_cost, seen[pair.plain], seen[pair.loaded])


def in_turn(pair: Pair, repetition: int) -> tuple[Variant, Variant]:
    """The variant that goes first takes turns, so that neither always follows the other."""
    return (pair.loaded, pair.plain) if repetition % 2 else (pair.plain, pair.loaded)


def throughput(variant: Variant, options: argparse.Namespace) -> float:
    with NStarX(variant.config, variant.variables).start() as server:
        return measure(server, options.connections, options.seconds).load.requests_per_second


def publish(costs: Sequence[Cost], machine: dict[str, Any], options: argparse.Namespace) -> None:
    text = f"{report.caption(machine, options.seconds, options.repetitions)}\n\n{costs_table(costs)}"
    report.save(options.output, "overheads", {"machine": machine, "costs": [asdict(cost) for cost in costs]}, text)
    print(f"\n{text}")


def costs_table(costs: Sequence[Cost]) -> str:
    head = ["feature", "requests/s without", "requests/s with", "cost", "may cost", "met"]
    return report.table(head, (_row(cost) for cost in costs))


def _row(cost: Cost) -> list[str]:
    may_cost = f"≤ {cost.may_cost:.0%}"
    if cost.share is None:
        return [cost.pair, "", "", "not measured", may_cost, ""]
    throughputs = [f"{median(cost.plain):,.0f}", f"{median(cost.loaded):,.0f}"]
    return [cost.pair, *throughputs, f"{cost.share:.1%}", may_cost, "yes" if cost.share <= cost.may_cost else "no"]


if __name__ == "__main__":
    sys.exit(main())
