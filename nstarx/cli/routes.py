"""`nstarx routes`: read and change how traffic is divided."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nstarx.cli.connections import administration
from nstarx.cli.documents import read_document
from nstarx.cli.options import AdminURL
from nstarx.cli.output import Format, Output, console, print_document, print_warning
from nstarx.cli.standings import print_shares
from nstarx.client import ADMIN_URL
from nstarx.errors import InvalidConfiguration
from nstarx.spec.cluster import ClusterSpec
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument

EXAMPLE = "routes: [{model: iris, split: {weighted: {iris@1.0.0: 1}}}]"

KEYS_OF_UP = ClusterSpec.model_fields.keys() - RoutesDocument.model_fields.keys()
"""Keys of another kind of file, which has routes, too."""

routes = typer.Typer(no_args_is_help=True, help="Read and change how traffic is divided.")


def register(app: typer.Typer) -> None:
    app.add_typer(routes, name="routes")


@routes.command()
def show(admin_url: AdminURL = ADMIN_URL, output: Output = Format.yaml) -> None:
    """Print the routes as they are wanted, less what is as by default: a file that `apply` takes."""
    with administration(admin_url) as admin:
        document, etag = admin.routes()
        if output is not Format.table:
            print_document(_without_defaults(document), output)
            return
        print_shares(admin.status()["shares"])
    console.print(f"etag {etag}", style="dim")


def _without_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """What differs from the defaults; all of it where the server knows more of routes than this command."""
    try:
        return parse(RoutesDocument, document, "routes").model_dump(mode="json", exclude_defaults=True)
    except InvalidConfiguration:
        return document


@routes.command()
def apply(
    file: Annotated[Path, typer.Argument(help="A YAML file with `routes`.")],
    if_match: Annotated[str | None, typer.Option(help="Only when this is still the ETag that `show` printed.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and say what would change.")] = False,
    admin_url: AdminURL = ADMIN_URL,
) -> None:
    """Replace all routes by those of a file, at once and without losing a request."""
    document = _read(file)
    with administration(admin_url) as admin:
        applied = admin.apply_routes(document.model_dump(mode="json"), if_match, dry_run)
    verb = ("would change" if dry_run else "changed") if applied["changed"] else "unchanged"
    console.print(f"routes {verb}; snapshot {applied['number']}")
    for warning in applied["warnings"]:
        print_warning(warning)


def _read(file: Path) -> RoutesDocument:
    document = read_document(file, EXAMPLE)
    if document.keys() & KEYS_OF_UP:
        raise InvalidConfiguration(f"{file}: is a configuration for `nstarx up`; give a file with its `routes` alone")
    return parse(RoutesDocument, document, str(file))
