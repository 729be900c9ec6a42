"""What a request says besides its inputs: id, requested outputs, parameters.

An optional key whose value is null counts as absent, as some clients write it.
"""

from typing import Any

from nstarx.errors import InvalidRequest
from serving.codec.request import InferRequest, RequestedOutput

_PARAMETER_TYPES = frozenset((str, int, float, bool))


def read_options(document: dict[str, Any], request: InferRequest, known: tuple[str, ...]) -> None:
    """Write a document's options into its request; `known` are the version's outputs. Raises InvalidRequest."""
    request.id = _read_id(document.get("id"))
    request.parameters = read_parameters(document.get("parameters"), "the request")
    request.timeout_s = _read_timeout(request.parameters.get("timeout"))
    request.binary = _read_flag(request.parameters, "binary_data_output", False)
    request.outputs = _read_outputs(document.get("outputs"), known, request.binary)


def read_parameters(parameters: Any, owner: str) -> dict[str, Any]:
    """The parameters of a request or tensor, types checked. Raises InvalidRequest that names the owner."""
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise InvalidRequest(f"{owner}: parameters must be a JSON object")
    for key, value in parameters.items():
        if type(value) not in _PARAMETER_TYPES:
            raise InvalidRequest(f"{owner}: parameter '{key[:80]}' must be a string, a number or a boolean")
    return parameters


def _read_id(given: Any) -> str | None:
    if given is not None and type(given) is not str:
        raise InvalidRequest("id must be a string")
    return given


def _read_timeout(microseconds: Any) -> float | None:
    if microseconds is None:
        return None
    if type(microseconds) is not int or microseconds < 0:
        raise InvalidRequest("parameter 'timeout' must be a whole number of microseconds; 0 is none")
    return microseconds / 1e6 or None


def _read_flag(parameters: dict[str, Any], key: str, default: bool) -> bool:
    flag = parameters.get(key, default)
    if type(flag) is not bool:
        raise InvalidRequest(f"parameter '{key}' must be true or false")
    return flag


def _read_outputs(outputs: Any, known: tuple[str, ...], binary: bool) -> tuple[RequestedOutput, ...] | None:
    if outputs is None:
        return None
    if type(outputs) is not list:
        raise InvalidRequest("outputs must be a list of objects with a name")
    requested = tuple(_read_output(output, known, binary) for output in outputs)
    if len({output.name for output in requested}) < len(requested):
        raise InvalidRequest("outputs must not name the same output twice")
    return requested or None


def _read_output(output: Any, known: tuple[str, ...], binary: bool) -> RequestedOutput:
    name = output.get("name") if type(output) is dict else None
    if type(name) is not str:
        raise InvalidRequest("every requested output must be an object with a name")
    if name not in known:
        raise InvalidRequest(f"there is no output '{name[:80]}'; this model returns {', '.join(known)}")
    parameters = read_parameters(output.get("parameters"), f"output '{name}'")
    if "classification" in parameters:
        raise InvalidRequest(f"output '{name}': classification is not offered; ask for the scores, and sort them")
    if "shared_memory_region" in parameters:
        raise InvalidRequest(f"output '{name}': shared memory is not offered; take the data from the answer")
    return RequestedOutput(name, _read_flag(parameters, "binary_data", binary))
