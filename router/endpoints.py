"""Open Inference Protocol V2 over REST, less inference, which the hot path answers (router.protocol)."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nstarx.errors import InvalidRequest, NotFound, Unsupported
from router.dataplane import DataPlane
from router.outcomes import read_outcomes
from router.prefixed import Prefixed
from router.rendering import HANDLERS, JSON, read_object
from router.table import Address

Endpoint = Callable[[Request], Awaitable[Response]]


class V2:
    """The endpoints, each a verb of the data plane."""

    def __init__(self, plane: DataPlane, model_control: bool) -> None:
        self._plane = plane
        self._model_control = model_control

    def routes(self) -> list[Route]:
        return [
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models/stats", self.all_statistics),
            *self._model("", self.metadata),
            *self._model("/ready", self.model_ready),
            *self._model("/config", self.config),
            *self._model("/stats", self.statistics),
            Route("/v2/experiments/{name}/outcomes", self.outcomes, methods=["POST"]),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route("/v2/repository/models/{name}/load", self.load, methods=["POST"]),
            Route("/v2/repository/models/{name}/unload", self.unload, methods=["POST"]),
        ]

    def inference(self) -> list[Route]:
        """Where requests end up that the hot path could not take."""
        return list(self._model("/infer", self.infer, "POST"))

    def _model(self, end: str, endpoint: Endpoint, method: str = "GET") -> Iterator[Route]:
        for middle in ("", "/versions/{version}"):
            yield Route(f"/v2/models/{{name}}{middle}{end}", endpoint, methods=[method])

    async def server(self, request: Request) -> Response:
        return JSON(self._plane.server_metadata())

    async def live(self, request: Request) -> Response:
        return JSON({"live": self._plane.live()})

    async def ready(self, request: Request) -> Response:
        ready = self._plane.ready()
        return JSON({"ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        return JSON(self._plane.model_metadata(_address(request)))

    async def model_ready(self, request: Request) -> Response:
        address = _address(request)
        ready = self._plane.model_ready(address)
        return JSON({"name": address.model, "ready": ready}, 200 if ready else 503)

    async def config(self, request: Request) -> Response:
        return JSON(self._plane.model_config(_address(request)))

    async def statistics(self, request: Request) -> Response:
        return JSON(await self._plane.statistics(_address(request)))

    async def all_statistics(self, request: Request) -> Response:
        _only_at_the_root(request)
        return JSON(await self._plane.statistics(None))

    async def infer(self, request: Request) -> Response:
        raise self._plane.why_not(_address(request))

    async def outcomes(self, request: Request) -> Response:
        recordings = await self._plane.report_outcomes(request.path_params["name"], await read_outcomes(request))
        return JSON({"outcomes": recordings})

    async def index(self, request: Request) -> Response:
        _only_at_the_root(request)
        ready = (await read_object(request, b"{}")).get("ready", False)
        if not isinstance(ready, bool):
            raise InvalidRequest("ready: must be true or false")
        return JSON(self._plane.index(ready))

    async def load(self, request: Request) -> Response:
        await self._plane.load(request.path_params["name"], await self._command(request))
        return JSON({})

    async def unload(self, request: Request) -> Response:
        await self._command(request)
        await self._plane.unload(request.path_params["name"])
        return JSON({})

    async def _command(self, request: Request) -> dict[str, Any]:
        _only_at_the_root(request)
        if not self._model_control:
            raise Unsupported(
                "clients may not load and unload models here: ask the administration port, "
                "or start the gateway with model_control: explicit"
            )
        parameters = (await read_object(request, b"{}")).get("parameters", {})
        if not isinstance(parameters, dict):
            raise InvalidRequest("parameters: must be an object")
        return parameters


def _address(request: Request) -> Address:
    given, host = request.path_params, request.headers.get("host", "")
    return Address(given["name"], given.get("version"), request.scope.get("root_path", ""), host)


def _only_at_the_root(request: Request) -> None:
    """What is about all models is not for those who reach a prefix alone."""
    if request.scope.get("root_path"):
        raise NotFound(request.url.path)


def public_app(plane: DataPlane, model_control: bool) -> Starlette:
    """What answers on the inference port behind the hot path."""
    v2 = V2(plane, model_control)
    routes = [*v2.routes(), *v2.inference()]
    return Starlette(routes=routes, middleware=[below_prefixes(plane)], exception_handlers=HANDLERS)


def below_prefixes(plane: DataPlane) -> Middleware:
    """What makes an application answer below the prefixes that routes have."""
    return Middleware(Prefixed, plane.prefixes)
