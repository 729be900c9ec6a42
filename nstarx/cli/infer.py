"""`nstarx infer`: ask a model from the command line."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from nstarx.cli.options import URL
from nstarx.cli.output import Format, Output, console, print_document, print_table
from nstarx.client import INFERENCE_URL, Inference
from nstarx.errors import InvalidRequest


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
    name, _, version = model.partition("@")
    with Inference(url) as client:
        request = _request(inputs, lambda: client.metadata(name, version or None))
        answer, answered_by = client.infer(name, request, version or None)
    if output is not Format.table:
        print_document(answer, output)
        return
    print_table(("OUTPUT", "DATATYPE", "SHAPE", "DATA"), [_row(tensor) for tensor in answer["outputs"]])
    console.print(f"answered by {answered_by}", style="dim")


def _request(inputs: list[str], metadata: Any) -> dict[str, Any]:
    if inputs[0].startswith("@"):
        return _whole(Path(inputs[0][1:]))
    given = dict(map(_named, inputs))
    declared = {tensor["name"]: tensor for tensor in metadata()["inputs"]}
    return {"inputs": [_tensor(name, data, declared) for name, data in given.items()]}


def _whole(file: Path) -> dict[str, Any]:
    try:
        return dict(orjson.loads(file.read_bytes()))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{file}: {error}") from None


def _named(text: str) -> tuple[str, Any]:
    name, equals, data = text.partition("=")
    try:
        return name, orjson.loads(data if equals else "")
    except orjson.JSONDecodeError:
        raise InvalidRequest(f"--input '{text}': write it like x=[[5.1,3.5,1.4,0.2]]") from None


def _tensor(name: str, data: Any, declared: dict[str, Any]) -> dict[str, Any]:
    if name not in declared:
        raise InvalidRequest(f"--input '{name}': the model's inputs are: {', '.join(declared)}")
    try:
        shape = np.shape(data)
    except ValueError:
        raise InvalidRequest(f"--input '{name}': its lists are of different lengths") from None
    return {"name": name, "datatype": declared[name]["datatype"], "shape": list(shape), "data": data}


def _row(tensor: dict[str, Any]) -> tuple[Any, ...]:
    data = np.array(tensor["data"], dtype=object).reshape(tensor["shape"]).tolist()
    return tensor["name"], tensor["datatype"], tensor["shape"], orjson.dumps(data).decode()
