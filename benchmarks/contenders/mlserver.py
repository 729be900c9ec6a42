"""MLServer, with and without adaptive batching.

Fairness: inference in the server's own process (`parallel_workers: 0`), because for a run this short its worker
processes only add a hop; metrics, compression and access log off. MLServer parses and writes V2 JSON itself: it is
its own protocol.
"""

from benchmarks.contenders.contender import Contender, free_port, python
from benchmarks.contenders.environment import interpreter


class MLServer(Contender):
    name = "mlserver"
    title = "MLServer"
    batching: tuple[str, ...] = ()

    def command(self, port: int) -> list[str]:
        environment = interpreter("mlserver", "mlserver==1.7.1")
        return python("benchmarks.servers.mlserver", port, free_port(), *self.batching, interpreter=environment)


class MLServerBatching(MLServer):
    name = "mlserver_batching"
    title = "MLServer, batching"
    batching = ("--max-batch-size=64", "--max-wait-ms=1")
