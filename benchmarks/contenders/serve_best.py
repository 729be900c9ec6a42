"""Ray Serve as fast as its documentation makes it: HAProxy in front, requests straight into the replica.

`RAY_SERVE_ENABLE_HA_PROXY=1` replaces the Python proxy by HAProxy, which talks to the replica's own HTTP server
(direct ingress); `RAY_SERVE_THROUGHPUT_OPTIMIZED=1` keeps user code and router on the replica's event loop, buffers
logs, and uses gRPC between deployments. HAProxy gets as many threads as there are CPUs to run on (its default of four
would only make them wait for each other). Otherwise as `serve_default`. `check` refuses to measure anything else than
HAProxy on the port.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.contenders.contender import ContenderUnavailable, Server, free_port
from benchmarks.contenders.serve_default import ServeDefault


class ServeBest(ServeDefault):
    name = "serve_best"
    title = "Ray Serve, HAProxy, throughput-optimized"
    on_the_path = ("haproxy", "ServeReplica")

    def environment(self, folder: Path) -> dict[str, str]:
        return super().environment(folder) | {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": str(len(os.sched_getaffinity(0))),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        }

    def check(self, server: Server) -> str:
        port = urlsplit(server.url).port
        listeners = [process for process in server.processes() if listens(process, port)]
        if not listeners or any("haproxy" not in process.name() for process in listeners):
            names = ", ".join(process.name() for process in listeners) or "no process of Ray Serve"
            raise ContenderUnavailable(f"{self.name}: HAProxy is not in the path, {names} listens on port {port}")
        return f"HAProxy (pid {listeners[0].pid}) listens on the port"


def listens(process: psutil.Process, port: int | None) -> bool:
    connections = process.net_connections(kind="tcp")
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)
