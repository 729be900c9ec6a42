"""Clients of a running cluster over HTTP: inference, and administration."""

import json
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, Self
from urllib.parse import quote

import httpx

from nstarx.errors import InvalidRequest, NStarXError, Unavailable

INFERENCE_URL = "http://127.0.0.1:8080"
ADMIN_URL = "http://127.0.0.1:8081"
RECONNECT_S = 0.5
"""Before a stream of events that has ended is taken up again."""
SILENCE_S = 40.0
"""A stream of events is silent for 15 s at the most; one that says nothing for longer is dead."""


class RemoteError(NStarXError):
    """What the server refused, in its own words."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Client:
    """One server, asked and answering in JSON. Raises RemoteError, or Unavailable when nobody is there."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        self.url = url
        try:
            self._http = httpx.Client(base_url=url, timeout=timeout_s)
        except httpx.InvalidURL as error:
            raise InvalidRequest(f"'{url}' is not a URL: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request; its answer is a good one."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.InvalidURL as error:
            raise InvalidRequest(f"'{self.url}' is not a URL: {error}") from None
        except httpx.HTTPError as error:
            raise self._away(error) from None
        if response.is_error:
            raise RemoteError(response.status_code, _sentence(response))
        return response

    def _away(self, error: httpx.HTTPError) -> Unavailable:
        return Unavailable(f"nothing answers at {self.url} ({error}); is it up? `nstarx up` starts it")


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        return dict(response.json())
    except (ValueError, TypeError):
        raise RemoteError(502, f"{response.url} did not answer JSON; is this a gateway of NStarX?") from None


def _sentence(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code} without an explanation; is this a gateway of NStarX?"


class Inference(Client):
    """The inference port."""

    def __init__(self, url: str = INFERENCE_URL, timeout_s: float = 30.0) -> None:
        super().__init__(url, timeout_s)

    def metadata(self, model: str, version: str | None = None) -> dict[str, Any]:
        """Name, versions, inputs and outputs of a model."""
        return _document(self.ask("GET", _path(model, version)))

    def ready(self, model: str, version: str | None = None) -> bool:
        """Whether an inference request would find a replica."""
        try:
            self.ask("GET", f"{_path(model, version)}/ready")
        except RemoteError as error:
            if error.status not in (400, 404, 503):
                raise
            return False
        return True

    def infer(self, model: str, request: dict[str, Any], version: str | None = None) -> tuple[dict[str, Any], str]:
        """A V2 inference request's answer, and the version that gave it."""
        response = self.ask("POST", f"{_path(model, version)}/infer", json=request)
        return _document(response), response.headers.get("x-nstarx-version", "")

    def report_outcomes(self, experiment: str, outcomes: list[dict[str, Any]]) -> list[str]:
        """Report outcomes of an experiment, 1000 at most (`nstarx.spec.experiment.OutcomeRecord`); what became of each:
        `counted`, `duplicate` or `waiting`. Reporting them again changes nothing."""
        path = f"/v2/experiments/{quote(experiment, safe='')}/outcomes"
        return list(_document(self.ask("POST", path, json=outcomes))["outcomes"])


class Admin(Client):
    """The administration port."""

    def __init__(self, url: str = ADMIN_URL, timeout_s: float = 30.0) -> None:
        super().__init__(url, timeout_s)

    def status(self) -> dict[str, Any]:
        return _document(self.ask("GET", "/status"))

    def traffic(self) -> list[dict[str, Any]]:
        """The counters in the status, for `nstarx.traffic.window`."""
        return list(self.ask("GET", "/traffic").json())

    def routes(self) -> tuple[dict[str, Any], str]:
        """The routes document and its ETag."""
        response = self.ask("GET", "/routes")
        return _document(response), response.headers.get("etag", "")

    def apply_routes(
        self, document: dict[str, Any], if_match: str | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Replace all routes; what became of it."""
        headers = {"if-match": if_match} if if_match else {}
        params = {"dry_run": "true"} if dry_run else {}
        return _document(self.ask("PUT", "/routes", json=document, headers=headers, params=params))

    def explain(self, question: dict[str, Any]) -> dict[str, Any]:
        """Which version a request would get, and why."""
        return _document(self.ask("POST", "/routes/explain", json=question))

    def demotions(self) -> list[dict[str, Any]]:
        """The latest verdicts against versions, oldest first, each with where its version stands."""
        return list(_document(self.ask("GET", "/demotions"))["demotions"])

    def demotion(self, id: int) -> dict[str, Any]:
        """One of them."""
        return _document(self.ask("GET", f"/demotions/{id}"))

    def undo_demotion(self, id: int) -> dict[str, Any]:
        """Give its version all of its traffic back; the record afterwards."""
        return _document(self.ask("POST", f"/demotions/{id}/undo"))

    def events(self, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Events with a higher number, oldest first."""
        params = {"after": after, "limit": limit}
        return list(_document(self.ask("GET", "/events", params=params))["events"])

    def follow_events(self, after: int = 0, patience_s: float = 60.0) -> Generator[dict[str, Any], None, None]:
        """Events with a higher number as they come, for ever. A connection that ends is taken up again where it ended.

        Raises Unavailable when nobody answers for `patience_s` seconds; at the first try, at once.
        """
        lost_at: float | None = -inf
        while True:
            try:
                with self._stream("/events", {"last-event-id": str(after)}) as lines:
                    lost_at = None
                    for event in read_events(lines):
                        after = event["number"]
                        yield event
            except Unavailable:
                lost_at = time.monotonic() if lost_at is None else lost_at
                if time.monotonic() - lost_at > patience_s:
                    raise
            time.sleep(RECONNECT_S)

    @contextmanager
    def _stream(self, path: str, headers: dict[str, str]) -> Iterator[Iterator[str]]:
        """The lines of server-sent events. Raises Unavailable when the connection can't be made, or breaks."""
        accept = {"accept": "text/event-stream", **headers}
        try:
            with self._http.stream("GET", path, headers=accept, timeout=httpx.Timeout(5.0, read=SILENCE_S)) as response:
                if response.is_error:
                    response.read()
                    raise RemoteError(response.status_code, _sentence(response))
                yield response.iter_lines()
        except httpx.HTTPError as error:
            raise self._away(error) from None

    def experiments(self) -> list[dict[str, Any]]:
        """Every experiment, how it stands and what it says."""
        return list(_document(self.ask("GET", "/experiments"))["experiments"])

    def experiment(self, name: str) -> dict[str, Any]:
        """One of them."""
        return _document(self.ask("GET", f"/experiments/{quote(name, safe='')}"))

    def start_experiment(self, name: str) -> dict[str, Any]:
        """A new run, which knows nothing of a former one; how it stands then."""
        return _document(self.ask("POST", f"/experiments/{quote(name, safe='')}/start"))

    def stop_experiment(self, name: str) -> dict[str, Any]:
        """It assigns nobody any more; how it stands then."""
        return _document(self.ask("POST", f"/experiments/{quote(name, safe='')}/stop"))

    def apply_settings(self, ref: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Change live settings of a version by a merge patch."""
        return _document(self.ask("PATCH", f"/versions/{quote(ref, safe='')}/settings", json=settings))

    def caches(self) -> list[dict[str, Any]]:
        """What each gateway keeps for each route with a cache."""
        return list(self.ask("GET", "/cache").json())

    def purge_caches(self, key: str | None) -> dict[str, Any]:
        """Drop the cached answers that bear a surrogate key in every gateway, all of them for None."""
        return _document(self.ask("POST", "/cache/purge", json={"key": key}))

    def shadows(self) -> list[dict[str, Any]]:
        """Every shadow, with its verdict."""
        return list(self.ask("GET", "/shadows").json())

    def shadow(self, route: str, version: str) -> dict[str, Any]:
        """What a shadow has shown."""
        return _document(self.ask("GET", f"/shadows/{quote(route, safe='')}/{quote(version, safe='')}"))

    def reset_shadow(self, route: str, version: str) -> None:
        """Forget what a shadow has shown, and begin anew."""
        self.ask("POST", f"/shadows/{quote(route, safe='')}/{quote(version, safe='')}/reset")


def read_events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The data of server-sent events, as JSON; comments and other fields are passed over (WHATWG HTML, 9.2.6)."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield dict(json.loads("\n".join(data)))
            data = []


def _path(model: str, version: str | None) -> str:
    middle = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v2/models/{quote(model, safe='')}{middle}"
