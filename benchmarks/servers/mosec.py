"""mosec (HTTP in Rust, work in a Python process) with the same work in its worker."""

import os
from typing import Any

import orjson
from mosec import Server, Worker  # type: ignore[import-not-found]  # lives in an environment of its own

from benchmarks.servers.iris import PATH, Iris, encode

MAX_BATCH_SIZE = int(os.environ.get("BENCHMARK_MAX_BATCH_SIZE", "1"))
MAX_WAIT_MS = int(os.environ.get("BENCHMARK_MAX_WAIT_MS", "0"))
"""Variables rather than arguments, because mosec reads the command line itself (`--port`, `--address`, …)."""


class IrisWorker(Worker):  # type: ignore[misc]
    def __init__(self) -> None:
        self.iris = Iris()

    def deserialize(self, data: bytes) -> Any:
        return orjson.loads(data)

    def serialize(self, data: dict[str, Any]) -> bytes:
        return encode(data)

    def forward(self, data: Any) -> Any:
        return self.iris.answer_all(data) if MAX_BATCH_SIZE > 1 else self.iris.answer_all([data])[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(IrisWorker, num=1, max_batch_size=MAX_BATCH_SIZE, max_wait_time=MAX_WAIT_MS, route=PATH)
    server.run()
