"""This gateway, as `nstarx up` starts it: one gateway process, one replica, metrics on.

Fairness: CPU time and memory are those of the gateway and the replica, as they are those of the proxy and the replica
for Ray Serve; Ray's own processes and the coordinator, which requests don't pass through, are left out of both.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import yaml

from benchmarks import processes
from benchmarks.contenders.contender import ROOT, Contender, ContenderUnavailable

CONFIG = ROOT / "benchmarks" / "configs" / "gateway.yaml"


class NStarX(Contender):
    name = "nstarx"
    title = "NStarX"

    def __init__(self, config: Path = CONFIG, variables: Mapping[str, str] | None = None) -> None:
        self.config = config
        self.variables = dict(variables or {})

    def command(self, port: int) -> list[str]:
        executable = Path(sys.executable).with_name("nstarx")
        if not executable.exists():
            raise ContenderUnavailable(f"{executable} is missing; install the project into this environment")
        return [str(executable), "up", str(self.config)]

    def environment(self, folder: Path) -> dict[str, str]:
        return self.variables

    def port(self) -> int:
        return self._gateway("port")

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self._gateway('admin_port')}"

    def _gateway(self, key: str) -> int:
        number: int = yaml.safe_load(self.config.read_text())["gateway"][key]
        return number

    def serves(self, process: psutil.Process) -> bool:
        return "ServeReplica" in processes.title(process)
