"""Administration over HTTP: metrics, status, routes, settings, and the model repository's commands."""

import contextlib
from collections import Counter
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from cluster.demotions import DemotionNotFound
from cluster.records import DemotionRecord, Snapshot
from judging.standing import Standing
from nstarx.errors import InvalidRequest, NStarXError
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument
from router.dataplane import DataPlane
from router.endpoints import V2, below_prefixes
from router.event_stream import after_of, limit_of, listed, stream
from router.explaining import Question
from router.gateway import Gateway
from router.live_settings import change_settings
from router.metrics import Readings, exposition
from router.purging import purge
from router.rendering import HANDLERS, JSON, read_object
from router.shadow_endpoints import ShadowEndpoints
from router.shares import standing_shares


class Administration:
    """The endpoints of one gateway's administration port; it answers for every gateway of the cluster."""

    def __init__(self, gateway: Gateway, plane: DataPlane) -> None:
        self._gateway = gateway
        self._plane = plane

    def routes(self) -> list[Route]:
        return [
            Route("/metrics", self.metrics),
            Route("/status", self.status),
            Route("/traffic", self.traffic),
            Route("/routes", self.show_routes),
            Route("/routes", self.apply_routes, methods=["PUT"]),
            Route("/cache", self.show_caches),
            Route("/cache/purge", self.purge_caches, methods=["POST"]),
            *ShadowEndpoints(self._gateway).routes(),
            Route("/routes/explain", self.explain, methods=["POST"]),
            Route("/experiments", self.experiments),
            Route("/experiments/{name}", self.experiment),
            Route("/experiments/{name}/start", self.start_experiment, methods=["POST"]),
            Route("/experiments/{name}/stop", self.stop_experiment, methods=["POST"]),
            Route("/versions/{ref}/settings", self.apply_settings, methods=["PATCH"]),
            Route("/demotions", self.demotions),
            Route("/demotions/{id:int}", self.demotion),
            Route("/demotions/{id:int}/undo", self.undo_demotion, methods=["POST"]),
            Route("/events", self.events),
        ]

    async def metrics(self, request: Request) -> Response:
        gateway = self._gateway
        snapshot = gateway.table.snapshot
        shares = standing_shares(snapshot.routes, self._gateway.standings())
        readings, counters = await gateway.readings(), await gateway.counters()
        text = exposition(readings, counters, self._replicas(), shares, gateway.events.counts)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def status(self, request: Request) -> Response:
        """What is, as one document: snapshot, gateways, versions, routes, traffic since each gateway's start."""
        snapshot = self._gateway.table.snapshot
        readings = await self._gateway.readings()
        return JSON(
            {
                "snapshot": snapshot.number,
                "coordinator": await self._coordinator(),
                "gateways": [
                    {"gateway": id, "node": r["node"], "snapshot": r["snapshot"], "started": r["started"]}
                    for id, r in readings.items()
                ],
                "versions": [
                    {"version": ref, "replicas": count, "settings": snapshot.settings.get(ref, {})}
                    for ref, count in sorted(self._replicas().items())
                ],
                "routes": [route.model_dump(mode="json") for route in snapshot.routes],
                "shares": standing_shares(snapshot.routes, self._gateway.standings()),
                "ejected": [{"gateway": id, **e} for id, r in readings.items() for e in r["ejected"]],
                "traffic": _traffic(readings),
            }
        )

    async def traffic(self, request: Request) -> Response:
        """The part of the status that changes all the time."""
        return JSON(_traffic(await self._gateway.readings()))

    async def show_routes(self, request: Request) -> Response:
        document, etag = await self._gateway.coordination.routes()
        return JSON(document.model_dump(mode="json"), headers={"etag": etag})

    async def apply_routes(self, request: Request) -> Response:
        """Replace all routes. `?dry_run=true` validates and says what would change."""
        document = parse(RoutesDocument, await read_object(request), "routes")
        dry_run = request.query_params.get("dry_run", "false")
        if dry_run not in ("true", "false"):
            raise InvalidRequest("dry_run: must be true or false")
        applied = await self._gateway.coordination.apply_routes(
            document, request.headers.get("if-match"), dry_run == "true"
        )
        return JSON(applied.model_dump(mode="json"), headers={"etag": applied.etag})

    async def explain(self, request: Request) -> Response:
        """Which version a request would get, and why. Takes nobody's turn."""
        question = parse(Question, await read_object(request), "request")
        return JSON(self._plane.explain(question).model_dump(mode="json"))

    async def demotions(self, request: Request) -> Response:
        """The latest verdicts against versions, oldest first, each with where its version stands now."""
        snapshot = await self._newest()
        return JSON({"demotions": [_with_standing(record, snapshot) for record in snapshot.demotions]})

    async def demotion(self, request: Request) -> Response:
        snapshot = await self._newest()
        return JSON(_with_standing(_found(snapshot, request.path_params["id"]), snapshot))

    async def undo_demotion(self, request: Request) -> Response:
        """Give a demoted version all of its traffic back."""
        coordination = self._gateway.coordination
        record = _found(await coordination.snapshot(), request.path_params["id"])
        await coordination.undo_demotion(record.route, record.version)
        snapshot = await coordination.snapshot()
        return JSON(_with_standing(_found(snapshot, record.id), snapshot))

    async def events(self, request: Request) -> Response:
        """What has happened in the cluster: a list, or a stream for who accepts server-sent events."""
        gateway, after = self._gateway, after_of(request)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JSON(listed(gateway.events, after, limit_of(request)))
        going = stream(gateway.events, after, lambda: gateway.draining)
        return StreamingResponse(going, media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _newest(self) -> Snapshot:
        """The coordinator's snapshot; while it is away, what this gateway holds."""
        with contextlib.suppress(NStarXError):
            return await self._gateway.coordination.snapshot()
        return self._gateway.table.snapshot

    async def experiments(self, request: Request) -> Response:
        """Every experiment, how it stands and what it says."""
        found = await self._gateway.coordination.experiments()
        return JSON({"experiments": [status.model_dump(mode="json") for status in found]})

    async def experiment(self, request: Request) -> Response:
        status = await self._gateway.coordination.experiment(request.path_params["name"])
        return JSON(status.model_dump(mode="json"))

    async def start_experiment(self, request: Request) -> Response:
        """A new run; what a former one has seen is forgotten."""
        status = await self._gateway.coordination.start_experiment(request.path_params["name"])
        return JSON(status.model_dump(mode="json"))

    async def stop_experiment(self, request: Request) -> Response:
        """It assigns nobody any more; outcomes may still come."""
        status = await self._gateway.coordination.stop_experiment(request.path_params["name"])
        return JSON(status.model_dump(mode="json"))

    async def apply_settings(self, request: Request) -> Response:
        """Change live settings of a version by a merge patch; null removes one. What its model refuses is undone."""
        applied = await change_settings(self._gateway, request.path_params["ref"], await read_object(request))
        return JSON(applied.model_dump(mode="json"))

    async def show_caches(self, request: Request) -> Response:
        """What each gateway keeps for each route with a cache, and what has come of requests to it."""
        return JSON(
            [
                {"gateway": id, "route": route, **cache}
                for id, reading in (await self._gateway.readings()).items()
                for route, cache in reading["caches"].items()
            ]
        )

    async def purge_caches(self, request: Request) -> Response:
        """Drop cached answers by a surrogate key, in every gateway; `null` drops all."""
        purged = await purge(self._gateway, await read_object(request))
        return JSON(purged.model_dump(mode="json"))

    def _replicas(self) -> dict[str, int]:
        return dict(Counter(record.ref for record in self._gateway.table.snapshot.replicas))

    async def _coordinator(self) -> str:
        try:
            await self._gateway.coordination.members()
        except NStarXError:
            return "away"
        return "present"


def _found(snapshot: Snapshot, id: int) -> DemotionRecord:
    for record in snapshot.demotions:
        if record.id == id:
            return record
    raise DemotionNotFound(f"demotion {id}")


def _with_standing(record: DemotionRecord, snapshot: Snapshot) -> dict[str, Any]:
    standing = snapshot.standings.get(record.route, {}).get(record.version, Standing())
    return {**record.model_dump(mode="json"), "standing": standing.model_dump(mode="json", exclude={"evidence"})}


def _traffic(readings: Readings) -> list[dict[str, Any]]:
    return [_as_json({"gateway": id, **tally}) for id, reading in readings.items() for tally in reading["tallies"]]


def _as_json(tally: dict[str, Any]) -> dict[str, Any]:
    by_status = {name: {str(code): count for code, count in tally[name].items()} for name in ("codes", "spared")}
    return {**tally, **by_status}


def admin_app(gateway: Gateway, plane: DataPlane) -> Starlette:
    """What answers on the administration port; it may also be asked what the inference port is asked."""
    routes = [*Administration(gateway, plane).routes(), *V2(plane, model_control=True).routes()]
    return Starlette(routes=routes, middleware=[below_prefixes(plane)], exception_handlers=HANDLERS)
