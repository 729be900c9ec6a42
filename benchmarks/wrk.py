"""Load from wrk, with every answer checked by `iris.lua`."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("iris.lua")
TIMEOUT_S = 10


class LoadFailed(Exception):
    """wrk could not reach the server or did not report; says what wrk said."""


@dataclass(frozen=True)
class Load:
    """What wrk saw in one measurement. Latencies include the load generator's own, as a client's would."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    """Connections refused, broken or timed out, and answers with a status of 400 or above."""
    wrong: int
    """Answers without status 200 or without the label that was asked for."""

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds


def installed() -> bool:
    return shutil.which("wrk") is not None


def run(url: str, connections: int, seconds: int, script: Path = SCRIPT, arguments: Sequence[str] = ()) -> Load:
    """Load `url` from one thread over `connections` kept-alive connections, each with one request in flight.

    Requests and checks are the script's, which is given the arguments.

    Raises LoadFailed when there is nobody to load.
    """
    finished = subprocess.run(command(url, connections, seconds, script, arguments), capture_output=True, text=True)
    return parse(finished.stdout + finished.stderr)


def command(
    url: str, connections: int, seconds: int, script: Path = SCRIPT, arguments: Sequence[str] = ()
) -> list[str]:
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT_S}s", f"--script={script}"]
    return ["wrk", *options, url, *(["--", *arguments] if arguments else [])]


def parse(output: str) -> Load:
    """Read the line of JSON that `iris.lua` prints below wrk's own report. Raises LoadFailed when it isn't there."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            return Load(**json.loads(line))
    raise LoadFailed(f"wrk printed no line of JSON; it said: {output.strip() or 'nothing'}")
