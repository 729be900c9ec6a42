"""What a kept answer saves: requests per second that the cache answers, over those that a replica has to, in one run.

Two models stand behind routes with a cache: iris, and one that computes for 2 ms. Each is asked what it has been asked
before (hits), and what it has never been asked (misses), by turns, in the opposite order in every other repetition, and
each repetition gives one ratio. Run as `python -m benchmarks.caching`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks import processes, report, wrk
from benchmarks.contenders import ContenderUnavailable, Server
from benchmarks.contenders.contender import ROOT, free_port
from benchmarks.contenders.nstarx import NStarX
from benchmarks.python_model import ONE_ROW, write_model
from benchmarks.wrk import Load, LoadFailed

QUESTIONS = Path(__file__).with_name("questions.lua")
CACHE = {"ttl_s": 3600, "max_bytes": "16Mi"}
"""Room for 8,000 answers, of which `questions.lua` asks for 30,000."""
APART = 3000
"""Questions between the first ones of two repetitions: more than the slow model answers in one."""
SLOW = '''"""Doubles its input after 2 ms of computing."""

import time


class Model:
    def infer(self, inputs):
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        return {"y": inputs["x"] * 2}
'''


@dataclass(frozen=True)
class Gain:
    """Throughputs of one model, repetition by repetition."""

    model: str
    title: str
    wanted: float
    """What a hit must be over a miss."""
    misses: tuple[float, ...] = ()
    """Requests per second that a replica answered."""
    hits: tuple[float, ...] = ()
    """Requests per second that the cache answered, in the same repetitions."""

    @property
    def ratio(self) -> float:
        return median(hit / miss for hit, miss in zip(self.hits, self.misses, strict=True))


GAINS = (Gain("iris", "iris", 3.0), Gain("slow", "a model that takes 2 ms", 10.0))


def main() -> int:
    options = arguments().parse_args()
    if not wrk.installed():
        print("Skipped: the load generator wrk is not installed (Debian: apt-get install wrk).")
        return 0
    machine = report.machine(processes.pin(options.cpus))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            gains = measure(NStarX(configuration(Path(folder))), options)
        except (ContenderUnavailable, LoadFailed) as error:
            print(error)
            return 1
    text = f"{report.caption(machine, options.seconds, options.repetitions)}\n\n{gains_table(gains)}"
    report.save(options.output, "caching", {"machine": machine, "gains": [asdict(gain) for gain in gains]}, text)
    print(f"\n{text}")
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement (default: 3)")
    parser.add_argument("--repetitions", type=int, default=5, help="ratios per model (default: 5)")
    parser.add_argument("--connections", type=int, default=32, help="load (default: 32)")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs for server and load generator (default: 2)")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the results")
    return parser


def configuration(folder: Path) -> Path:
    """Both models behind one gateway; the slow one is written to `folder`."""
    repository = folder / "models"
    (repository / "iris").mkdir(parents=True)
    (repository / "iris" / "1.0.0").symlink_to(ROOT / "models" / "iris" / "1.0.0")
    write_model(repository / "slow" / "1.0.0", SLOW, **ONE_ROW)
    routes = [
        {"model": gain.model, "split": {"weighted": {f"{gain.model}@1.0.0": 1}}, "cache": CACHE} for gain in GAINS
    ]
    document = {
        "repository": str(repository),
        "gateway": {"port": free_port(), "admin_port": free_port()},
        "versions": [{"version": f"{gain.model}@1.0.0"} for gain in GAINS],
        "routes": routes,
    }
    config = folder / "caching.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


def measure(gateway: NStarX, options: argparse.Namespace) -> list[Gain]:
    with gateway.start() as server:
        return [measured(gain, server, options) for gain in GAINS]


def measured(gain: Gain, server: Server, options: argparse.Namespace) -> Gain:
    """Hits and misses by turns."""
    url = server.url.replace("/iris/", f"/{gain.model}/")
    seen: dict[str, list[float]] = {"same": [], "new": []}
    for repetition in range(options.repetitions):
        first = repetition * APART
        for questions in ("same", "new") if repetition % 2 else ("new", "same"):
            load = ask(url, (gain.model, questions, str(first)), options)
            seen[questions].append(load.requests_per_second)
            print(f"{gain.title}, {questions}: {load.requests_per_second:,.0f} requests/s", flush=True)
    return Gain(gain.model, gain.title, gain.wanted, tuple(seen["new"]), tuple(seen["same"]))


def ask(url: str, questions: tuple[str, ...], options: argparse.Namespace) -> Load:
    """Warm up with a look at every answer, then measure. Raises LoadFailed when one was another's, or an error."""
    first = int(questions[-1])
    warm = wrk.run(url, options.connections, 1, QUESTIONS, (*questions, "checked"))
    load = wrk.run(url, options.connections, options.seconds, QUESTIONS, (*questions[:-1], str(first + warm.requests)))
    if warm.wrong or warm.errors or load.errors:
        raise LoadFailed(f"{questions}: {warm.wrong} wrong answers, {warm.errors + load.errors} errors")
    return load


def gains_table(gains: Iterable[Gain]) -> str:
    head = ["model", "misses/s", "hits/s", "ratio", "wanted", "met"]
    return report.table(head, map(_row, gains))


def _row(gain: Gain) -> list[str]:
    rates: list[Any] = [f"{median(gain.misses):,.0f}", f"{median(gain.hits):,.0f}"]
    met = "yes" if gain.ratio >= gain.wanted else "no"
    return [gain.title, *rates, f"{gain.ratio:.3g}x", f"≥ {gain.wanted:g}x", met]


if __name__ == "__main__":
    sys.exit(main())
