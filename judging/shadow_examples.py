"""The most different requests of a shadow, kept as examples; what they say about their callers is chosen here alone."""

import math
from collections.abc import Iterable
from heapq import nlargest
from typing import Any, NamedTuple

import numpy as np
import orjson

from judging.answers import Answer, Output, inflated, outputs
from judging.comparison import Comparison
from nstarx.spec.shadow import ShadowSpec
from nstarx.tensors import Tensor

MAX_PAYLOAD_BYTES = 16384
"""Of a request or an answer, once it is plain; larger ones are left out of examples."""
MAX_DIFFERENCES = 16
"""Sentences in one example."""
REDACTED = "(redacted)"

Example = dict[str, Any]
"""A pair as JSON: `id`, `at`, `distance`, `outcome`, the version whose answer the client got and
whether that was a rescue, both statuses, the values of attributes, and a sentence for each
output that differs; with `keep_payloads` also the tensors of `request`, `primary` and `shadow`."""


class Pair(NamedTuple):
    """One copied request and its two answers."""

    id: str
    """The request's own, `x-request-id`; it tells examples apart."""
    at: float
    """When it came, in Unix seconds."""
    request: Answer
    """What both were sent; its status says nothing."""
    primary: Answer
    shadow: Answer
    primary_ns: int
    """From sending to answer, in nanoseconds."""
    shadow_ns: int
    values: tuple[str, ...] = ()
    """Of the spec's attributes, in its order; empty where the request has no such header."""
    version: str = ""
    """The version whose answer the client got."""
    rescued: bool = False
    """Whether that stood in for another version, which had failed."""


def kept_with(
    examples: list[Example], pair: Pair, comparison: Comparison, spec: ShadowSpec, limit: int
) -> list[Example]:
    """The examples, and a pair where it is among the `limit` most different; any other is nearly free."""
    if not limit or (len(examples) == limit and (comparison.distance, -pair.at, pair.id) <= _rank(examples[-1])):
        return examples
    return most_different([*examples, example(pair, comparison, spec)], limit)


def most_different(examples: Iterable[Example], limit: int) -> list[Example]:
    """The `limit` most different, those first; of equally different ones the earliest, so that a flood of the same kind
    costs nothing."""
    return nlargest(limit, examples, key=_rank)


def example(pair: Pair, comparison: Comparison, spec: ShadowSpec) -> Example:
    """A pair as an example. Without `keep_payloads` it holds no element of any tensor but names of classes."""
    kept: Example = {
        "id": pair.id,
        "at": pair.at,
        "distance": comparison.distance,
        "outcome": comparison.outcome.value,
        "primary_version": pair.version,
        "rescued": pair.rescued,
        "primary_status": pair.primary.status,
        "shadow_status": pair.shadow.status,
        "attributes": dict(zip(spec.attributes, pair.values, strict=True)),
        "differences": [difference.explain() for difference in comparison.differences[:MAX_DIFFERENCES]],
    }
    return kept | _payloads(pair, spec) if spec.keep_payloads else kept


def _rank(kept: Example) -> tuple[float, float, str]:
    return kept["distance"], -kept["at"], kept["id"]


def _payloads(pair: Pair, spec: ShadowSpec) -> Example:
    return {
        "request": _payload(pair.request, "inputs", spec),
        "primary": _payload(pair.primary, "outputs", spec),
        "shadow": _payload(pair.shadow, "outputs", spec),
    }


def _payload(message: Answer, key: str, spec: ShadowSpec) -> Any:
    """Its tensors by name. Only what has a name that isn't redacted is kept: no ids, parameters, unknown keys."""
    try:
        plain = inflated(message, MAX_PAYLOAD_BYTES)
        if len(plain.body) > MAX_PAYLOAD_BYTES:
            return f"(left out: {len(plain.body)} bytes)"
        if message.status >= 400:
            return _error(plain.body, spec)
        return {
            name: _tensor(name, tensor, spec) for name, tensor in outputs(plain.body, plain.json_length, key).items()
        }
    except ValueError:
        return "(not readable)"


def _error(body: bytes, spec: ShadowSpec) -> str:
    """The sentence of an error, which may quote an input: with anything redacted it is left out."""
    document = {} if spec.redact else orjson.loads(body)
    sentence = document.get("error") if isinstance(document, dict) else None
    return sentence if isinstance(sentence, str) else REDACTED if spec.redact else "(no sentence)"


def _tensor(name: str, tensor: Output, spec: ShadowSpec) -> dict[str, Any]:
    form = {"datatype": tensor.datatype, "shape": tensor.shape}
    return form | {"data": REDACTED if name in spec.redact else _data(tensor.array())}


def _data(array: Tensor) -> list[Any]:
    if array.dtype.kind == "O":
        return [element.decode(errors="replace") for element in array.flat]
    # bfloat16 has no plain numbers of its own; what is not finite is null, as in answers.
    flat = array.astype(np.float32).ravel() if array.dtype.kind == "V" else array.ravel()
    return [None if isinstance(element, float) and not math.isfinite(element) else element for element in flat.tolist()]
