"""What clients notice of a bad release: a canary that fails every request, behind two gateways, at a steady rate.

In each round a route that had the stable version alone gets the canary, while clients go on asking at their own pace
whatever the answers take. Counted are the requests that failed for clients, the calls that the candidate failed until
no gateway sent it any more, and the time between the first and the last of these. Run as
`python -m benchmarks.bad_release`.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import processes, report
from benchmarks.contenders import ContenderUnavailable
from benchmarks.contenders.contender import ROOT, free_port
from benchmarks.contenders.nstarx import NStarX
from nstarx.client import Admin

STABLE, CANDIDATE = "flaky@1.0.0", "flaky@1.1.0"
PATH = "/v2/models/flaky/infer"
BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
BEFORE_S, AFTER_S = 0.5, 2.0
"""Of each round: with the stable version alone, and with the canary."""
REPORTED_S = 1.2
"""Until every gateway has reported what it has counted."""
MOST_CALLS, MOST_MS = 50, 100.0
"""A candidate may have so many calls, or so much time, whichever is later."""


@dataclass
class Seen:
    """What clients have seen."""

    answers: int = 0
    failed: int = 0
    rescued_at: list[float] = field(default_factory=list)
    """When answers came in the place of the candidate's, in seconds."""


@dataclass(frozen=True)
class Round:
    """One bad release."""

    requests: int
    per_second: float
    failed: int
    """Requests that did not get a good answer."""
    candidate_calls: dict[str, int]
    """By gateway, calls that the candidate failed."""
    until_gone_ms: float
    """From the first to the last of them, as clients saw it."""

    @property
    def calls(self) -> int:
        return sum(self.candidate_calls.values())

    @property
    def is_gone_in_time(self) -> bool:
        return self.calls <= MOST_CALLS or self.until_gone_ms <= MOST_MS


def main() -> int:
    options = arguments().parse_args()
    machine = report.machine(processes.pin(options.cpus))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        gateway = NStarX(configuration(Path(folder)))
        try:
            with gateway.start():
                rounds = asyncio.run(measured(gateway, options))
        except ContenderUnavailable as error:
            print(error)
            return 1
    text = f"{caption(machine, options)}\n\n{rounds_table(rounds)}"
    report.save(
        options.output, "bad_release", {"machine": machine, "rounds": [asdict(round) for round in rounds]}, text
    )
    print(f"\n{text}")
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="bad releases (default: 10)")
    parser.add_argument("--rate", type=int, default=1000, help="requests per second (default: 1000)")
    parser.add_argument("--connections", type=int, default=32, help="clients (default: 32)")
    parser.add_argument("--percent", type=float, default=10, help="the candidate's share (default: 10)")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs for servers and load (default: 2)")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the results")
    return parser


def configuration(folder: Path) -> Path:
    """Two gateways; both versions of the model, the candidate broken from its start. Iris says when all is up."""
    document = {
        "repository": str(ROOT / "models"),
        "gateway": {"port": free_port(), "admin_port": free_port(), "processes": 2},
        "versions": [
            {"version": STABLE},
            {"version": CANDIDATE, "settings": {"error_rate": 1.0}},
            {"version": "iris@1.0.0"},
        ],
        "routes": [stable_alone()],
    }
    config = folder / "bad-release.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


def stable_alone() -> dict[str, Any]:
    return {"model": "flaky", "split": {"weighted": {STABLE: 1}}}


def with_canary(percent: float) -> dict[str, Any]:
    canary = {"stable": STABLE, "candidate": CANDIDATE, "percent": percent}
    return {"model": "flaky", "split": {"canary": canary}}


async def measured(gateway: NStarX, options: argparse.Namespace) -> list[Round]:
    rounds = []
    with Admin(gateway.admin_url) as admin:
        await asyncio.to_thread(wait_until_served, admin)
        for number in range(options.rounds):
            rounds.append(await bad_release(gateway.port(), admin, options))
            print(f"release {number + 1}: {rounds[-1]}", flush=True)
    return rounds


def wait_until_served(admin: Admin) -> None:
    while not {STABLE, CANDIDATE} <= {version["version"] for version in admin.status()["versions"]}:
        time.sleep(0.2)


async def bad_release(port: int, admin: Admin, options: argparse.Namespace) -> Round:
    """Clients ask all the time; the canary comes in the midst of it."""
    await asyncio.to_thread(admin.apply_routes, {"routes": [stable_alone()]})
    before = await asyncio.to_thread(candidate_calls, admin)
    seen, begun = Seen(), time.perf_counter()
    load = asyncio.create_task(ask(port, options, begun + BEFORE_S + AFTER_S, seen))
    await asyncio.sleep(BEFORE_S)
    await asyncio.to_thread(admin.apply_routes, {"routes": [with_canary(options.percent)]})
    await load
    seconds = time.perf_counter() - begun
    await asyncio.sleep(REPORTED_S)
    calls = await asyncio.to_thread(candidate_calls, admin)
    until_gone = max(seen.rescued_at, default=0.0) - min(seen.rescued_at, default=0.0)
    return Round(
        requests=seen.answers,
        per_second=seen.answers / seconds,
        failed=seen.failed,
        candidate_calls={gateway: count - before.get(gateway, 0) for gateway, count in calls.items()},
        until_gone_ms=1000 * until_gone,
    )


def candidate_calls(admin: Admin) -> dict[str, int]:
    """By gateway, calls that the candidate has had as such."""
    families = text_string_to_metric_families(admin.ask("GET", "/metrics").text)
    found: dict[str, int] = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = sample.labels
        if sample.name == "nstarx_requests_total" and (labels["version"], labels["role"]) == (CANDIDATE, "candidate"):
            found[labels["gateway"]] = found.get(labels["gateway"], 0) + int(sample.value)
    return found


async def ask(port: int, options: argparse.Namespace, end: float, seen: Seen) -> None:
    """Clients side by side, each at its part of the rate and a little after the last."""
    pause = options.connections / options.rate
    start = time.perf_counter()
    clients = (client(port, start + number / options.rate, pause, end, seen) for number in range(options.connections))
    await asyncio.gather(*clients)


async def client(port: int, due: float, pause: float, end: float, seen: Seen) -> None:
    """One connection that is kept: a request each time one is due, late ones at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    request = head.encode() + BODY
    while (now := time.perf_counter()) < end:
        await asyncio.sleep(max(due - now, 0))
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        note(seen, answer, time.perf_counter())
        due += pause
    writer.close()


def note(seen: Seen, head: bytes, now: float) -> None:
    seen.answers += 1
    seen.failed += not head.startswith(b"HTTP/1.1 200 ")
    if b"\r\nx-nstarx-rescued: " in head:
        seen.rescued_at.append(now)


def caption(machine: dict[str, Any], options: argparse.Namespace) -> str:
    return (
        f"Measured on {machine['when'][:10]} on {len(machine['cpus_used'])} CPUs ({machine['cpu']}, load average "
        f"{machine['load_average_before']:.1f} before) shared by gateways, replicas and clients: {options.rounds} "
        f"releases at {options.percent:g} %, {options.rate:,} requests/s wanted."
    )


def rounds_table(rounds: Sequence[Round]) -> str:
    requests, failed = sum(round.requests for round in rounds), sum(round.failed for round in rounds)
    calls, times = [round.calls for round in rounds], [round.until_gone_ms for round in rounds]
    gone = sum(round.is_gone_in_time for round in rounds)
    head = ["", "measured", "bound", "met"]
    rows = [
        ["requests/s, median", f"{median(round.per_second for round in rounds):,.0f}", "", ""],
        ["failed client requests", f"{failed} of {requests:,}", "0", yes(failed == 0)],
        ["failed candidate calls until every gateway sends none, median (most)", spread(calls), "", ""],
        ["milliseconds from the first to the last, median (most)", spread(times), "", ""],
        [
            f"releases with at most {MOST_CALLS} calls or {MOST_MS:g} ms, whichever is later",
            f"{gone} of {len(rounds)}",
            "all",
            yes(gone == len(rounds)),
        ],
    ]  # fmt: skip
    return report.table(head, rows)


def spread(numbers: Sequence[float]) -> str:
    return f"{median(numbers):.0f} ({max(numbers):.0f})"


def yes(met: bool) -> str:
    return "yes" if met else "no"


if __name__ == "__main__":
    sys.exit(main())
