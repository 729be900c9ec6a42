"""Options that several commands take."""

from typing import Annotated

import typer

AdminURL = Annotated[str, typer.Option("--admin-url", envvar="NSTARX_ADMIN_URL", help="Administration port.")]
URL = Annotated[str, typer.Option("--url", envvar="NSTARX_URL", help="Inference port.")]
