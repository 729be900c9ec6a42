"""LitServe, with and without batching.

Fairness: one API server process and one worker, its fast (ZeroMQ) queue, access log off, the response written by
orjson in the worker. LitServe parses the request's JSON itself, with the standard library. Of the waits tried for
batching (0, 1 and 5 ms) the longest gave the most requests per second at 128 connections, and is used.
"""

from benchmarks.contenders.contender import Contender, python
from benchmarks.contenders.environment import interpreter


class LitServe(Contender):
    name = "litserve"
    title = "LitServe"
    batching: tuple[str, ...] = ()

    def command(self, port: int) -> list[str]:
        environment = interpreter("litserve", "litserve==0.2.19")
        return python("benchmarks.servers.litserve", port, *self.batching, interpreter=environment)


class LitServeBatching(LitServe):
    name = "litserve_batching"
    title = "LitServe, batching"
    batching = ("--max-batch-size=64", "--max-wait-ms=5")
