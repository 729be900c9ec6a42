"""What shadows have shown, over HTTP."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from judging.shadow_report import ShadowReport
from router.gateway import Gateway
from router.rendering import JSON


class ShadowEndpoints:
    """A part of the administration port; the figures are of all gateways, and a second or two old."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route("/shadows", self.list),
            # A route's name may hold slashes, where it has a prefix or hosts.
            Route("/shadows/{route:path}/{version}/reset", self.reset, methods=["POST"]),
            Route("/shadows/{route:path}/{version}", self.report),
        ]

    async def list(self, request: Request) -> Response:
        shadows = await self._gateway.coordination.shadows()
        return JSON([_summary(route, report) for route, report in shadows])

    async def report(self, request: Request) -> Response:
        route, version = request.path_params["route"], request.path_params["version"]
        report = await self._gateway.coordination.shadow(route, version)
        return JSON({"route": route, **report.model_dump(mode="json")})

    async def reset(self, request: Request) -> Response:
        """Forget what a shadow has shown."""
        route, version = request.path_params["route"], request.path_params["version"]
        applied = await self._gateway.coordination.reset_shadow(route, version)
        return JSON({"number": applied.number})


def _summary(route: str, report: ShadowReport) -> dict[str, Any]:
    return {
        "route": route,
        "version": report.version,
        "verdict": report.verdict,
        "sentence": report.sentence,
        "sampled": report.sampled,
        "dropped": report.dropped,
        "compared": report.mismatch.of,
        "mismatched": report.mismatch.count,
        "failed": report.errors.count,
    }
