"""mosec, with and without dynamic batching.

Fairness: one worker process, JSON by orjson in the worker as in the bare process; mosec's front is compiled Rust. Its
shortest wait for a batch is one millisecond, which is what its latency at one connection shows.
"""

from pathlib import Path

from benchmarks.contenders.contender import Contender, python
from benchmarks.contenders.environment import interpreter


class Mosec(Contender):
    name = "mosec"
    title = "mosec"
    max_batch_size = 1

    def command(self, port: int) -> list[str]:
        options = ("--address=127.0.0.1", f"--port={port}", "--log-level=warning")
        return python("benchmarks.servers.mosec", *options, interpreter=interpreter("mosec", "mosec==0.9.8"))

    def environment(self, folder: Path) -> dict[str, str]:
        return {"BENCHMARK_MAX_BATCH_SIZE": str(self.max_batch_size), "BENCHMARK_MAX_WAIT_MS": "1"}


class MosecBatching(Mosec):
    name = "mosec_batching"
    title = "mosec, batching"
    max_batch_size = 64
