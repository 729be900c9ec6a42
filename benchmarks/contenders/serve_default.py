"""Ray Serve behind its default HTTP proxy, one replica.

Fairness: the replica does the same work as the bare process. Its limit of concurrent requests is raised far above the
load's (the default of 5 would make requests queue in the proxy), and its access log is off, as for every contender.
What is counted is the proxy and the replica; Ray's own processes (GCS, raylet, Serve's controller) are left out here
as they are for the gateway.
"""

from pathlib import Path

import psutil

from benchmarks import processes
from benchmarks.contenders.contender import Contender, python


class ServeDefault(Contender):
    name = "serve_default"
    title = "Ray Serve, default proxy"
    on_the_path: tuple[str, ...] = ("ProxyActor", "ServeReplica")
    """Parts of the titles of the processes that requests pass through."""

    def command(self, port: int) -> list[str]:
        return python("benchmarks.servers.ray_serve", port)

    def environment(self, folder: Path) -> dict[str, str]:
        return {"BENCHMARK_RAY_TEMP_DIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}

    def serves(self, process: psutil.Process) -> bool:
        return any(part in processes.title(process) for part in self.on_the_path)
