"""What this gateway's own features cost: the same gateway with and without them, in one run.

Each pair differs in one thing. Its two variants are measured by turns, in the opposite order in every other repetition,
and each repetition gives one ratio of their throughputs, so that a machine that slows down slows both. Run as
`python -m benchmarks.overheads`.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks import processes, report, wrk
from benchmarks.contenders import ContenderUnavailable
from benchmarks.contenders.contender import ROOT, free_port, python
from benchmarks.contenders.nstarx import CONFIG, NStarX
from benchmarks.measurement import measure
from benchmarks.wrk import LoadFailed


@dataclass(frozen=True)
class Variant:
    """One way to start the gateway."""

    title: str
    gateway: NStarX


@dataclass(frozen=True)
class Pair:
    """The gateway with a feature and without it."""

    title: str
    plain: Variant
    loaded: Variant
    may_cost: float
    """Share of the plain variant's throughput that the feature may take."""


class Accounting(NStarX):
    """The gateway from `benchmarks.servers.accounting`."""

    def __init__(self, config: Path, switch: str) -> None:
        super().__init__(config, {"PYTHONPATH": str(ROOT)})
        self.switch = switch

    def command(self, port: int) -> list[str]:
        return python("benchmarks.servers.accounting", self.config, self.switch)


def pairs(folder: Path) -> list[Pair]:
    """Everything that is measured; configurations that are made for it go to `folder`."""
    return [
        Pair(
            "split, metrics and error windows",
            plain=Variant("without", Accounting(configuration("without", folder), "off")),
            loaded=Variant("with", Accounting(configuration("with", folder), "on")),
            may_cost=0.15,
        ),
        Pair(
            "1,000 routes",
            plain=Variant("1 route", NStarX(configuration("1-route", folder))),
            loaded=Variant("1,000 routes", NStarX(configuration("1000-routes", folder, routes=1000))),
            may_cost=0.03,
        ),
        Pair(
            "everything that routes can do",
            plain=Variant("one version", NStarX(replicated("plain", folder, ROUTE))),
            loaded=Variant("everything", NStarX(replicated("everything", folder, ROUTE | EVERYTHING))),
            may_cost=0.20,
        ),
    ]


ADDRESS = {"client_address": True}
CANARY = {"stable": "iris@1.0.0", "candidate": "iris@1.1.0", "percent": 10}
ROUTE = {"model": "iris", "split": {"weighted": {"iris@1.0.0": 1}}}
EVERYTHING = {
    "rules": [
        {"name": "testers", "match": {"headers": {"x-team": {"one_of": ["ml", "qa"]}}}, "split": {"canary": CANARY}},
        {"name": "early", "match": {"percent": 0.01, "key": ADDRESS}, "split": {"canary": CANARY | {"percent": 100}}},
    ],
    "split": {"canary": CANARY, "sticky": ADDRESS},
    "rate_limits": [{"name": "per-client", "requests": 1_000_000_000, "window_s": 1, "key": ADDRESS}],
    "admission": {"min_concurrency": 512},
    "balancing": {"slow_start_s": 10},
    "retry": {"num_retries": 2, "retry_on": ["reset", "refused", "gateway_error"]},
}
"""Rules that are asked and don't match, a sticky canary that is watched, rescued and demoted, a rate limit and a gate
that never refuse, balancing with ejection, and a budget for retries."""


def replicated(name: str, folder: Path, route: dict[str, Any]) -> Path:
    """Two replicas of the stable version and one of the candidate, behind this route."""
    config = configuration(name, folder)
    document = yaml.safe_load(config.read_text())
    document["versions"] = [{"version": "iris@1.0.0", "replicas": 2}, {"version": "iris@1.1.0"}]
    document["routes"] = [route]
    config.write_text(yaml.safe_dump(document))
    return config


def configuration(name: str, folder: Path, routes: int = 1) -> Path:
    """The benchmark's configuration on ports of its own, with further routes to the same version, `routes` in all."""
    document = yaml.safe_load(CONFIG.read_text())
    document["repository"] = str(ROOT / document["repository"])
    document["gateway"] |= {"port": free_port(), "admin_port": free_port()}
    first = document["routes"][0]
    document["routes"] += [first | {"model": f"iris-{number:04}"} for number in range(1, routes)]
    config = folder / f"{name}.yaml"
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
    def share(self) -> float:
        """Median share of the throughput that the feature takes; below 0 when noise outweighs it."""
        return 1 - median(loaded / plain for plain, loaded in zip(self.plain, self.loaded, strict=True))


def main() -> int:
    options = arguments().parse_args()
    if not wrk.installed():
        print("Skipped: the load generator wrk is not installed (Debian: apt-get install wrk).")
        return 0
    machine = report.machine(processes.pin(options.cpus))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            costs = [cost(pair, options) for pair in pairs(Path(folder)) if options.only in pair.title]
        except (ContenderUnavailable, LoadFailed) as error:
            print(error)
            return 1
    if options.only:
        print(f"\n{costs_table(costs)}")
    else:
        publish(costs, machine, options)
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement (default: 3)")
    parser.add_argument("--repetitions", type=int, default=9, help="ratios per pair (default: 9)")
    parser.add_argument("--only", default="", help="measure the features alone whose title has this, and keep nothing")
    parser.add_argument("--connections", type=int, default=128, help="load (default: 128)")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs for server and load generator (default: 2)")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the results")
    return parser


def cost(pair: Pair, options: argparse.Namespace) -> Cost:
    """Both variants are up all the time, and loaded by turns: the one that idles costs the other next to nothing."""
    seen: dict[str, list[float]] = {pair.plain.title: [], pair.loaded.title: []}
    with pair.plain.gateway.start() as plain, pair.loaded.gateway.start() as loaded:
        servers = [(pair.plain, plain), (pair.loaded, loaded)]
        for repetition in range(options.repetitions):
            for variant, server in servers if repetition % 2 else reversed(servers):
                load = measure(server, options.connections, options.seconds).load
                seen[variant.title].append(load.requests_per_second)
                print(f"{pair.title}, {variant.title}: {load.requests_per_second:,.0f} requests/s", flush=True)
    return Cost(pair.title, pair.may_cost, seen[pair.plain.title], seen[pair.loaded.title])


def publish(costs: Sequence[Cost], machine: dict[str, Any], options: argparse.Namespace) -> None:
    text = f"{report.caption(machine, options.seconds, options.repetitions)}\n\n{costs_table(costs)}"
    report.save(options.output, "overheads", {"machine": machine, "costs": [asdict(cost) for cost in costs]}, text)
    print(f"\n{text}")


def costs_table(costs: Sequence[Cost]) -> str:
    head = ["feature", "requests/s without", "requests/s with", "cost", "may cost", "met"]
    return report.table(head, (_row(cost) for cost in costs))


def _row(cost: Cost) -> list[str]:
    throughputs = [f"{median(cost.plain):,.0f}", f"{median(cost.loaded):,.0f}"]
    met = "yes" if cost.share <= cost.may_cost else "no"
    return [cost.pair, *throughputs, f"{cost.share:.1%}", f"≤ {cost.may_cost:.0%}", met]


if __name__ == "__main__":
    sys.exit(main())
