"""Compare this gateway with Ray Serve, a bare Python server and, with `--peers`, other model servers.

Every contender serves the same iris model on the same CPUs and is asked the same questions by the same load
generator; see README.md for how and why. Run as `python -m benchmarks.compare`, or `make bench`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import measurement, processes, report, wrk
from benchmarks.contenders import CONTENDERS, PEERS, Contender, ContenderUnavailable
from benchmarks.contenders.contender import MODEL
from benchmarks.measurement import Reading, Summary, measure, memory_mb
from benchmarks.wrk import LoadFailed


@dataclass
class Record:
    """All that was seen of one contender so far."""

    contender: Contender
    readings: list[Reading] = field(default_factory=list)
    memory: list[dict[str, float]] = field(default_factory=list)
    note: str = ""
    unavailable: str = ""
    """Why it takes no further part."""

    def summary(self) -> Summary:
        figures = measurement.figures(self.readings)
        return Summary(self.contender.title, self.note, figures, measurement.median_memory(self.memory))


def main() -> int:
    options = arguments().parse_args()
    if not wrk.installed():
        print("Skipped: the load generator wrk is not installed (Debian: apt-get install wrk).")
        return 0
    if not MODEL.exists():
        print(f"{MODEL} is missing; make it with: python models/train.py")
        return 1
    machine = report.machine(processes.pin(options.cpus))
    records = [Record(contender()) for contender in chosen(options)]
    for repetition in range(options.repetitions):
        for record in records:
            print(f"\nRepetition {repetition + 1} of {options.repetitions}: {record.contender.title}", flush=True)
            repeat(record, options.connections, options.seconds)
    return publish(records, machine, options)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (default: 5)")
    parser.add_argument("--repetitions", type=int, default=3, help="rounds through all contenders (default: 3)")
    parser.add_argument("--connections", type=numbers, default=[1, 32, 128], help="loads (default: 1,32,128)")
    parser.add_argument("--contenders", type=names, default=[], help="only these, by name: " + ", ".join(NAMES))
    parser.add_argument("--peers", action="store_true", help="also LitServe, MLServer and mosec")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs for server and load generator (default: 2)")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the results")
    return parser


NAMES = tuple(contender.name for contender in CONTENDERS + PEERS)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    wanted = text.split(",")
    unknown = ", ".join(name for name in wanted if name not in NAMES)
    if unknown:
        raise argparse.ArgumentTypeError(f"no contender is called {unknown}; there are {', '.join(NAMES)}")
    return wanted


def chosen(options: argparse.Namespace) -> Sequence[type[Contender]]:
    if options.contenders:
        return [contender for contender in CONTENDERS + PEERS if contender.name in options.contenders]
    return CONTENDERS + PEERS if options.peers else CONTENDERS


def repeat(record: Record, loads: Sequence[int], seconds: int) -> None:
    """Start one contender, measure it under every load, stop it; one that can't take part is left out from then on."""
    if record.unavailable:
        print(f"  left out: {record.unavailable}")
        return
    try:
        with record.contender.start() as server:
            record.note = server.note
            print(f"  {server.note or 'ready'}", flush=True)
            for connections in loads:
                record.readings.append(measure(server, connections, seconds))
                print("  " + line(record.readings[-1]), flush=True)
            record.memory.append(memory_mb(server))
    except (ContenderUnavailable, LoadFailed) as error:
        record.unavailable = str(error)
        print(f"  left out: {error}")


def line(reading: Reading) -> str:
    load = reading.load
    return (
        f"{reading.connections:4} connections: {load.requests_per_second:9,.0f} requests/s, p50 {load.p50_ms:.2f} ms, "
        f"p99 {load.p99_ms:.2f} ms, {reading.cpu_us:,.0f} µs CPU, {load.errors} errors, {load.wrong} wrong"
    )


def publish(records: Sequence[Record], machine: dict[str, Any], options: argparse.Namespace) -> int:
    """Write and print the results; 1 when there are none, or an answer was wrong and so they are worth nothing."""
    if not any(record.readings for record in records):
        print("\nNothing was measured; the last results stay as they are.")
        return 1
    summaries = {record.contender.name: record.summary() for record in records if record.readings}
    left_out = {record.contender.name: record.unavailable for record in records if record.unavailable}
    caption = report.caption(machine, options.seconds, options.repetitions)
    text = "\n\n".join([caption, report.comparison(summaries), *(f"Left out: {why}" for why in left_out.values())])
    readings = [reading for record in records for reading in record.readings]
    result = {"machine": machine, "contenders": summaries, "left_out": left_out, "readings": readings}
    report.save(options.output, "comparison", result, text)
    print(f"\n{text}")
    return int(any(reading.load.wrong for reading in readings))


if __name__ == "__main__":
    sys.exit(main())
