"""One Ray Serve deployment in a local Ray of its own, which goes when this process is told to end."""

import os
import signal
import sys
import threading

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.servers.iris import PATH, Iris

NO_ACCESS_LOG = {"enable_access_log": False}


class IrisDeployment:
    def __init__(self) -> None:
        self.iris = Iris()

    async def __call__(self, request: Request) -> Response:
        return Response(self.iris.answer(await request.body()), media_type="application/json")


def main(port: int, temp_dir: str) -> None:
    ray.init(address="local", include_dashboard=False, num_cpus=4, log_to_driver=False, _temp_dir=temp_dir)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = serve.deployment(max_ongoing_requests=1000, logging_config=NO_ACCESS_LOG)(IrisDeployment)
    serve.run(deployment.bind(), name="iris", route_prefix=PATH)
    wait_for_the_end()
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


def wait_for_the_end() -> None:
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    told.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), os.environ["BENCHMARK_RAY_TEMP_DIR"])
