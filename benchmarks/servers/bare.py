"""One uvicorn process with Starlette, orjson and ONNX Runtime, and nothing else."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.servers.iris import PATH, Iris

iris = Iris()


async def infer(request: Request) -> Response:
    return Response(iris.answer(await request.body()), media_type="application/json")


app = Starlette(routes=[Route(PATH, infer, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
