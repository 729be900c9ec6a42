"""How commands print: tables for people, JSON or YAML for machines."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console()


class Format(StrEnum):
    """What `--output` takes."""

    table = "table"
    json = "json"
    yaml = "yaml"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]


def print_document(document: Any, output: Format) -> None:
    """A document for machines."""
    if output is Format.yaml:
        text = yaml.safe_dump(document, sort_keys=False)
    else:
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"
    typer.echo(text, nl=False)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str | None = None) -> None:
    """A table for people. Cells are rich's markup: what others have written has to be escaped."""
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def print_warning(sentence: str) -> None:
    """A sentence about something that was done, but may not be what was meant; printed as it is."""
    console.print(Text(f"warning: {sentence}", "yellow"), soft_wrap=True)


def print_error(sentence: str) -> None:
    """Why a command failed, on standard error; printed as it is, brackets too."""
    Console(stderr=True).print(Text.assemble(("error: ", "red"), sentence), soft_wrap=True)
