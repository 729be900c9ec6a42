"""`nstarx configure`: live settings of a version."""

from typing import Annotated

import typer

from nstarx.cli.options import AdminURL
from nstarx.cli.output import console
from nstarx.client import ADMIN_URL, Admin
from nstarx.errors import InvalidRequest
from nstarx.spec.record import parse_yaml


def register(app: typer.Typer) -> None:
    app.command("configure")(configure)


def configure(
    version: Annotated[str, typer.Argument(help="A version that is served, like flaky@1.0.0.")],
    settings: Annotated[list[str], typer.Argument(help="NAME=VALUE, the value as YAML; null removes it.")],
    admin_url: AdminURL = ADMIN_URL,
) -> None:
    """Change settings of a version while it serves: those of its Python class, or `batching`."""
    with Admin(admin_url) as admin:
        applied = admin.apply_settings(version, dict(map(_setting, settings)))
    console.print(f"settings of {version} {'changed' if applied['changed'] else 'unchanged'}")
    for warning in applied["warnings"]:
        console.print(f"warning: {warning}", style="yellow")


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidRequest(f"'{text}' is not a setting; write it like error_rate=0.5")
    return name, parse_yaml(value, name)
