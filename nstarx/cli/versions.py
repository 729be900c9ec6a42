"""`nstarx configure`: live settings of a version."""

from typing import Annotated

import typer

from nstarx.cli.connections import administration
from nstarx.cli.options import AdminURL
from nstarx.cli.output import console, print_warning
from nstarx.client import ADMIN_URL
from nstarx.errors import InvalidConfiguration, InvalidRequest
from nstarx.spec.record import parse_yaml
from nstarx.spec.version import VersionRef


def register(app: typer.Typer) -> None:
    app.command("configure")(configure)


def configure(
    version: Annotated[str, typer.Argument(help="A version that is served, like flaky@1.0.0.")],
    settings: Annotated[list[str], typer.Argument(help="NAME=VALUE, the value as YAML; null removes it.")],
    admin_url: AdminURL = ADMIN_URL,
) -> None:
    """Change settings of a version while it serves: those of its Python class, or `batching`."""
    ref, given = _version(version), _settings(settings)
    with administration(admin_url) as admin:
        applied = admin.apply_settings(ref, given)
    console.print(f"settings of {version} {'changed' if applied['changed'] else 'unchanged'}")
    for warning in applied["warnings"]:
        print_warning(warning)


def _version(text: str) -> str:
    try:
        return str(VersionRef.parse(text))
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def _settings(texts: list[str]) -> dict[str, object]:
    given: dict[str, object] = {}
    for name, value in map(_setting, texts):
        if name in given:
            raise InvalidRequest(f"'{name}' is given twice; give each setting once")
        given[name] = value
    return given


def _setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise InvalidRequest(
            f"'{text}' is not a setting; write it like error_rate=0.5, or error_rate=null to remove it"
        )
    try:
        return name, parse_yaml(value, name)
    except InvalidConfiguration:
        raise InvalidRequest(
            f"'{text}': the value is not YAML; write it like error_rate=0.5 or name='[1, 2]'"
        ) from None
