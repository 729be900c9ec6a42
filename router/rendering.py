"""How errors leave a Starlette application: always a V2 error object, never a stack."""

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from nstarx.errors import InvalidRequest, MethodNotAllowed, NotFound, NStarXError, PayloadTooLarge

log = logging.getLogger("nstarx.gateway")

BODY_LIMIT = 4 << 20
"""Bytes of a body that isn't tensors: routes files, settings, repository commands."""


class JSON(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def error_response(error: NStarXError) -> Response:
    """The one rendering of our errors."""
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s is not None else {}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allowed
    return JSON({"error": error.sentence}, error.status, headers)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, NStarXError)
    return error_response(error)


async def _starlettes(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        return error_response(MethodNotAllowed(request.method, path, (error.headers or {}).get("Allow", "another")))
    return (
        error_response(NotFound(path)) if error.status_code == 404 else JSON({"error": error.detail}, error.status_code)
    )


async def _unforeseen(request: Request, error: Exception) -> Response:
    log.exception("request failed", exc_info=error, extra={"action": "request_failed"})
    return error_response(NStarXError("the gateway failed at this request; its log says why"))


async def _nobody_listens(request: Request, error: Exception) -> Response:
    return Response()


HANDLERS: Mapping[Any, Any] = {
    NStarXError: _ours,
    HTTPException: _starlettes,
    ClientDisconnect: _nobody_listens,
    Exception: _unforeseen,
}
"""For `Starlette(exception_handlers=…)`."""


async def read_object(request: Request, default: bytes | None = None) -> dict[str, Any]:
    """A request's body as a JSON object, `default` for an empty one. Raises InvalidRequest, PayloadTooLarge."""
    document = await read_document(request, default)
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    return document


async def read_document(request: Request, default: bytes | None = None) -> Any:
    """A request's body as JSON, `default` for an empty one. Raises InvalidRequest, PayloadTooLarge."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_LIMIT:
            raise PayloadTooLarge(BODY_LIMIT)
    try:
        return orjson.loads(body or default or b"")
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
