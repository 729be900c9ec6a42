"""`nstarx infer`: ask a model from the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.markup import escape

from nstarx.cli.connections import inference
from nstarx.cli.options import URL
from nstarx.cli.output import Format, Output, console, print_document, print_table
from nstarx.client import INFERENCE_URL, Inference
from nstarx.errors import InvalidRequest
from nstarx.spec.version import VersionRef, valid_name

EXAMPLE = '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [5.1]}]}'
JSONTensor = dict[str, Any]
"""A tensor, or what is said of one, as JSON."""


def register(app: typer.Typer) -> None:
    app.command("infer")(infer)


def infer(
    model: Annotated[str, typer.Argument(help="The model, or model@version for one version past any split.")],
    inputs: Annotated[
        list[str],
        typer.Option("--input", "-i", help="NAME=JSON, a nested list; or @FILE with a whole V2 request in JSON."),
    ],
    url: URL = INFERENCE_URL,
    output: Output = Format.table,
) -> None:
    """Send one inference request and print the answer."""
    name, version = _addressed(model)
    with inference(url) as client:
        request = _request(inputs, lambda: _inputs(client, name, version))
        answer, answered_by = client.infer(name, request, version)
    if output is not Format.table:
        print_document(answer, output)
        return
    print_table(("OUTPUT", "DATATYPE", "SHAPE", "DATA"), map(_row, _part(answer, "outputs", url)))
    console.print(f"answered by {answered_by}", style="dim")


def _addressed(model: str) -> tuple[str, str | None]:
    try:
        return VersionRef.parse(model) if "@" in model else (valid_name(model), None)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def _inputs(client: Inference, name: str, version: str | None) -> list[JSONTensor]:
    return _part(client.metadata(name, version), "inputs", client.url)


def _part(document: dict[str, Any], name: str, url: str) -> list[JSONTensor]:
    """A part that every gateway's answer has."""
    if name not in document:
        raise InvalidRequest(f"{url} did not answer in V2, for '{name}' is missing; is this a gateway of NStarX?")
    return list(document[name])


def _request(inputs: list[str], declared: Callable[[], list[JSONTensor]]) -> dict[str, Any]:
    files = [text for text in inputs if text.startswith("@")]
    if files and len(inputs) > 1:
        raise InvalidRequest(f"--input '{files[0]}': a file is the whole request; give no other --input with it")
    if files:
        return _whole(files[0])
    given = list(map(_named, inputs))
    types = {tensor["name"]: tensor["datatype"] for tensor in declared()}
    return {"inputs": [_tensor(name, data, types) for name, data in _once(given)]}


def _whole(text: str) -> dict[str, Any]:
    try:
        document = orjson.loads(Path(text[1:]).read_bytes())
    except OSError as error:
        raise InvalidRequest(f"--input '{text}': can't be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidRequest(f"--input '{text}': is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"--input '{text}': is not a V2 request, which is like {EXAMPLE}")
    return document


def _once(given: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    names = [name for name, _ in given]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"--input '{name}': is given twice; write all its rows as one list")
    return given


def _named(text: str) -> tuple[str, Any]:
    name, _, data = text.partition("=")
    try:
        return name, orjson.loads(data if name else "")
    except orjson.JSONDecodeError:
        raise InvalidRequest(f"--input '{text}': write it like x=[[5.1,3.5,1.4,0.2]]") from None


def _tensor(name: str, data: Any, types: dict[str, str]) -> JSONTensor:
    if name not in types:
        raise InvalidRequest(f"--input '{name}': the model's inputs are: {', '.join(types)}")
    try:
        shape = np.shape(data)
    except ValueError:
        raise InvalidRequest(f"--input '{name}': its lists are of different lengths") from None
    return {"name": name, "datatype": types[name], "shape": list(shape), "data": data}


def _row(tensor: JSONTensor) -> tuple[Any, ...]:
    data = np.array(tensor["data"], dtype=object).reshape(tensor["shape"]).tolist()
    return escape(tensor["name"]), tensor["datatype"], tensor["shape"], escape(orjson.dumps(data).decode())
