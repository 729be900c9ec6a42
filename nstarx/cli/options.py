"""Options that several commands take."""

from typing import Annotated
from urllib.parse import urlsplit

import typer


def _url(text: str) -> str:
    """A server's URL as it was given. Raises typer.BadParameter with an example."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # A port that is none, a bracket that isn't closed.
        good = False
    if not good:
        raise typer.BadParameter(f"'{text}' is not the URL of a server; write it like http://127.0.0.1:8080")
    return text


AdminURL = Annotated[
    str, typer.Option("--admin-url", envvar="NSTARX_ADMIN_URL", help="Administration port.", callback=_url)
]
URL = Annotated[str, typer.Option("--url", envvar="NSTARX_URL", help="Inference port.", callback=_url)]
