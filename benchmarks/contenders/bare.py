"""One uvicorn + Starlette + orjson + ONNX Runtime process: the least that a Python model server can be.

Fairness: uvloop and httptools, no access log, no middleware, the body parsed by orjson and the answer written by it
without a detour over lists; no version choice, metrics, limits or validation, which the gateway does have.
"""

from benchmarks.contenders.contender import Contender, python


class Bare(Contender):
    name = "bare"
    title = "bare uvicorn + Starlette"

    def command(self, port: int) -> list[str]:
        return python("benchmarks.servers.bare", port)
