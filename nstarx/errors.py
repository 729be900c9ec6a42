"""Every error of the project: each class knows its HTTP status, its code and its sentence.

The sentence says what is wrong and what to do next; it is the only text that reaches a client. One place per
border renders it (`router.endpoints`, `nstarx.cli`); foreign errors are translated where they enter.
"""

from collections.abc import Iterable
from typing import Any


class NStarXError(Exception):
    """The root. `status` is the HTTP status, `code` a stable word for machines, `sentence` what people read."""

    status = 500
    code = "internal"
    retry_after_s: int | None = None

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process borders whole, whatever their constructors take."""
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[NStarXError], args: tuple[Any, ...], state: dict[str, Any]) -> NStarXError:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


class InvalidRequest(NStarXError):
    """The request is malformed, or does not fit the model's signature."""

    status, code = 400, "invalid_request"


class InvalidTensor(InvalidRequest):
    """One named tensor of a request is wrong."""

    code = "invalid_tensor"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"input '{name}': {problem}")


class InvalidConfiguration(NStarXError):
    """A configuration file or document is wrong; the sentence names the field."""

    status, code = 400, "invalid_configuration"


class ModelNotFound(NStarXError):
    status, code = 404, "model_not_found"

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        names = ", ".join(sorted(known))
        super().__init__(
            f"model '{name}' is not served here; " + (f"served are: {names}" if names else "nothing is served yet")
        )


class VersionNotFound(NStarXError):
    status, code = 404, "version_not_found"

    def __init__(self, name: str, version: str, known: Iterable[str] = ()) -> None:
        versions = ", ".join(sorted(known))
        super().__init__(
            f"model '{name}' has no version '{version}' here; "
            + (f"its versions are: {versions}" if versions else "none of its versions is served")
        )


class VersionNotAddressable(NStarXError):
    """A route keeps the choice of the version to itself."""

    status, code = 404, "version_not_addressable"

    def __init__(self, route: str, path: str) -> None:
        super().__init__(f"route '{route}' does not let clients choose a version; ask {path}, and its split decides")


class NotFound(NStarXError):
    status, code = 404, "not_found"

    def __init__(self, path: str) -> None:
        super().__init__(f"there is nothing at '{path}'; GET /v2 says what this server offers")


class MethodNotAllowed(NStarXError):
    status, code = 405, "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(f"'{path}' does not answer {method}; use {allowed}")
        self.allowed = allowed


class RequestTimeout(NStarXError):
    """The client took too long to send its request."""

    status, code = 408, "request_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request was not complete after {seconds:g} s; send it faster, or on a new connection")


class Conflict(NStarXError):
    """Two writers met: what the second one knew is no longer true."""

    status, code = 412, "conflict"

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"If-Match was {expected}, but the ETag is now {actual}; read again, then repeat the change")


class LengthRequired(NStarXError):
    status, code = 411, "length_required"

    def __init__(self) -> None:
        super().__init__("the request has no body; send it with Content-Length or Transfer-Encoding: chunked")


class PayloadTooLarge(NStarXError):
    status, code = 413, "payload_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes, the limit of this gateway; send smaller batches")


class UnsupportedMediaType(NStarXError):
    status, code = 415, "unsupported_media_type"

    def __init__(self, given: str) -> None:
        super().__init__(
            f"Content-Type '{given}' is not understood; send application/json, or application/octet-stream "
            "with Inference-Header-Content-Length for binary tensors"
        )


class UnsupportedEncoding(NStarXError):
    status, code = 415, "unsupported_encoding"

    def __init__(self, given: str) -> None:
        super().__init__(f"Content-Encoding '{given}' is not understood; send gzip, deflate or none")


class HeadersTooLarge(NStarXError):
    status, code = 431, "headers_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request line and headers are larger than {limit} bytes; send fewer or shorter headers")


class Unsupported(NStarXError):
    status, code = 501, "unsupported"


class ModelFailed(NStarXError):
    """The model itself failed; its stack stays in the replica's log."""

    status, code = 500, "model_failed"

    def __init__(self, ref: str, reason: str) -> None:
        super().__init__(f"{ref} failed: {reason}")


class ModelLoadFailed(NStarXError):
    """A model version can't be loaded; the sentence says what is wrong with its files."""

    status, code = 500, "model_load_failed"

    def __init__(self, ref: str, reason: str) -> None:
        super().__init__(f"{ref} can't be loaded: {reason}")


class Unavailable(NStarXError):
    """Nothing can answer now, something may soon."""

    status, code, retry_after_s = 503, "unavailable", 1


class Overloaded(Unavailable):
    """Every replica's queue is full."""

    code = "overloaded"

    def __init__(self, ref: str) -> None:
        super().__init__(f"every replica of {ref} has a full queue; retry after a second")


class DeadlineExceeded(NStarXError):
    status, code = 504, "deadline_exceeded"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s, the deadline of this request")


class LaneError(NStarXError):
    """A peer broke the lane protocol, or may not speak it with us."""

    code = "lane_error"
