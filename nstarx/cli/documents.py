"""Configuration files as commands are given them: a document of keys and values, or a sentence that says what came."""

from pathlib import Path
from typing import Any

from nstarx.errors import InvalidConfiguration
from nstarx.spec.record import read_yaml


def read_document(file: Path, example: str) -> dict[str, Any]:
    """What a YAML file holds. Raises InvalidConfiguration; `example` shows how such a file begins."""
    document = read_yaml(file)
    if not isinstance(document, dict):
        raise InvalidConfiguration(f"{file}: {_found(document)}, but keys and values are needed, like: {example}")
    return document


def _found(document: object) -> str:
    if document is None:
        return "holds nothing"
    return "holds a list" if isinstance(document, list) else f"holds '{str(document)[:40]}'"
