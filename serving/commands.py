"""`nstarx models`: put a model file into a repository, and see what is there."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.markup import escape

from nstarx.cli.output import Format, Output, console, print_document, print_table
from nstarx.errors import InvalidConfiguration, Unsupported
from nstarx.repository import MODEL_YAML, Repository, sha256_of
from nstarx.spec.model import ModelSpec
from nstarx.spec.record import R, parse
from nstarx.spec.version import VersionRef

models = typer.Typer(no_args_is_help=True, help="Put a model file into the repository, and see what is there.")

Root = Annotated[str, typer.Option("--repository", "-r", help="Folder of the model repository.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(models, name="models")


@models.command("list")
def list_models(repository: Root = "models", output: Output = Format.table) -> None:
    """List the versions in the repository."""
    stored = Repository.locate(repository)
    specs = [stored.spec(ref) for ref in stored.refs()]
    if output is Format.table:
        rows = [(spec.ref, spec.runtime, escape(spec.description)) for spec in specs]
        print_table(("VERSION", "RUNTIME", "DESCRIPTION"), rows)
    else:
        print_document([spec.model_dump(mode="json", exclude_unset=True) for spec in specs], output)


@models.command()
def add(
    version: Annotated[str, typer.Argument(help="Its name and semantic version, like mine@1.0.0.")],
    file: Annotated[Path, typer.Argument(help="An ONNX file.")],
    repository: Root = "models",
    max_batch_size: Annotated[int, typer.Option(min=1, help="Rows of many requests that may run as one.")] = 64,
    description: Annotated[str, typer.Option(help="What it is.")] = "",
) -> None:
    """Copy an ONNX file into the repository, and write its model.yaml from the file's own signature."""
    ref = _parsed(version)
    folder = Path(repository) / ref.model / ref.version
    if (folder / MODEL_YAML).exists():
        raise InvalidConfiguration(f"{ref} is there already, and versions are immutable; choose another version")
    document = _described(ref, file, max_batch_size, description)
    parse(ModelSpec, document, str(file))  # What replicas would refuse is refused before anything is written.
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / "model.onnx")
    (folder / MODEL_YAML).write_text(yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120))
    console.print(f"{ref} is in {folder}; add golden examples to its {MODEL_YAML} to have replicas check them")


def _parsed(version: str) -> VersionRef:
    try:
        return VersionRef.parse(version)
    except ValueError as error:
        raise InvalidConfiguration(str(error)) from None


def _described(ref: VersionRef, file: Path, max_batch_size: int, description: str) -> dict[str, Any]:
    try:
        from serving.runtimes.onnx import signature_of
    except ImportError:
        raise Unsupported("this needs the server side; install it with: pip install 'nstarx[server]'") from None
    inputs, outputs = signature_of(file)
    document: dict[str, Any] = {
        "name": ref.model,
        "version": ref.version,
        "description": description,
        "runtime": "onnx",
    }
    document |= {"file": "model.onnx", "sha256": sha256_of(file)}
    document["inputs"] = [_plain(tensor) for tensor in inputs]
    document["outputs"] = [_plain(tensor) for tensor in outputs]
    free = all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs))
    document["batching"] = {"max_batch_size": max_batch_size if free else 1}
    return document


def _plain(tensor: R) -> dict[str, Any]:
    return tensor.model_dump(mode="json", exclude_unset=True)
