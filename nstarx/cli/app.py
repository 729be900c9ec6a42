"""The command line. Commands that need the server side come from the entry points of group `nstarx.commands`."""

import sys
from importlib.metadata import entry_points

import typer

from nstarx.cli import (
    cache,
    demotions,
    events,
    experiments,
    explaining,
    infer,
    routes,
    shadow,
    shortcuts,
    status,
    versions,
)
from nstarx.cli.output import print_error
from nstarx.errors import NStarXError

HELP = "Put model versions live behind a gateway that divides traffic among them."

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, help=HELP)
status.register(app)
routes.register(app)
explaining.register(routes.routes)
shortcuts.register(app, routes.routes)
demotions.register(app)
events.register(app)
shadow.register(app)
experiments.register(app)
infer.register(app)
versions.register(app)
cache.register(app)
for point in sorted(entry_points(group="nstarx.commands")):
    point.load()(app)


def main() -> None:
    """Run the command line; our errors, and those of files, become a sentence and exit code 1."""
    try:
        app()
    except (NStarXError, OSError) as error:
        print_error(error.sentence if isinstance(error, NStarXError) else _of_file(error))
        sys.exit(1)


def _of_file(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
