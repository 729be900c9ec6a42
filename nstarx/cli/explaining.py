"""`nstarx routes explain`: which version a request would get, and why."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from nstarx.cli.connections import administration
from nstarx.cli.options import AdminURL
from nstarx.cli.output import Format, Output, console, print_document, print_table
from nstarx.cli.standings import in_style
from nstarx.client import ADMIN_URL
from nstarx.errors import InvalidRequest

Pairs = list[str] | None


def register(routes: typer.Typer) -> None:
    routes.command("explain")(explain)


def explain(
    model: Annotated[str, typer.Argument(help="The model, or model@version as in a path with a version.")],
    header: Annotated[Pairs, typer.Option("--header", "-H", help="'Name: value', once for each.")] = None,
    query: Annotated[Pairs, typer.Option("--query", help="name=value of a query parameter.")] = None,
    cookie: Annotated[Pairs, typer.Option("--cookie", help="name=value.")] = None,
    claim: Annotated[Pairs, typer.Option("--claim", help="name=value of a verified token.")] = None,
    caller: Annotated[str | None, typer.Option(help="Name of the caller.")] = None,
    client_address: Annotated[str, typer.Option(help="Where the request comes from.")] = "",
    host: Annotated[str, typer.Option(help="Value of the header Host.")] = "",
    path_prefix: Annotated[str, typer.Option(help="What stands before /v2/ in the path.")] = "",
    admin_url: AdminURL = ADMIN_URL,
    output: Output = Format.table,
) -> None:
    """Say which version a request would get, and why, rule by rule. Nothing is sent to a model."""
    name, _, version = model.partition("@")
    question = {
        "model": name,
        "version": version or None,
        "path_prefix": path_prefix,
        "host": host,
        "headers": dict(_pair("--header", text, ":") for text in header or ()),
        "query": dict(_pair("--query", text, "=") for text in query or ()),
        "cookies": dict(_pair("--cookie", text, "=") for text in cookie or ()),
        "claims": dict(_pair("--claim", text, "=") for text in claim or ()),
        "client_address": client_address,
        "caller": caller,
    }
    with administration(admin_url) as admin:
        told = admin.explain(question)
    if output is Format.table:
        _print(told)
    else:
        print_document(told, output)


def _pair(option: str, text: str, sign: str) -> tuple[str, str]:
    name, found, value = text.partition(sign)
    if not found or not name.strip():
        example = "'x-user: ann'" if sign == ":" else "user=ann"
        raise InvalidRequest(f"{option} '{text}': write it like {example}")
    return name.strip(), value.strip()


def _print(told: dict[str, Any]) -> None:
    console.print(escape(told["sentence"]), style="bold", highlight=False, soft_wrap=True)
    console.print(escape(f"route {told['route']}, path {told['path']}"), style="dim", highlight=False)
    console.print()
    print_table(("VERSION", "ROLE", "CHANCE", "STATE", "REPLICAS"), map(_chance, told["versions"]))
    if told["rules"]:
        console.print()
        print_table(("RULE", "MATCHES", "BECAUSE"), map(_rule, told["rules"]))


def _chance(chance: dict[str, Any]) -> tuple[Any, ...]:
    names = escape(chance["version"]), escape(chance["role"])
    return *names, f"{chance['percent']:g} %", in_style(chance["state"]), chance["replicas"]


def _rule(rule: dict[str, Any]) -> tuple[str, str, str]:
    matches = "yes" if rule["matches"] else "no" if rule["enabled"] else "off"
    because = "\n".join(f"{'+' if f['holds'] else '-'} {f['sentence']}" for f in rule["findings"])
    return escape(rule["rule"]), matches, escape(because or "+ it wants nothing")
