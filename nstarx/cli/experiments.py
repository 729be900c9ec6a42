"""`nstarx experiments`: start and stop experiments, and read what they say."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from nstarx.cli.connections import administration
from nstarx.cli.options import AdminURL
from nstarx.cli.output import Format, Output, console, print_document, print_table
from nstarx.client import ADMIN_URL

Row = dict[str, Any]
Name = Annotated[str, typer.Argument(help="The experiment.")]

STYLES = {"winner": "green", "no_difference": "green", "undecided": "yellow"}

experiments = typer.Typer(no_args_is_help=True, help="Start and stop experiments, and read what they say.")


def register(app: typer.Typer) -> None:
    app.add_typer(experiments, name="experiments")


@experiments.command("list")
def list_experiments(admin_url: AdminURL = ADMIN_URL, output: Output = Format.table) -> None:
    """List all experiments."""
    with administration(admin_url) as admin:
        found = admin.experiments()
    if output is not Format.table:
        print_document(found, output)
        return
    columns = ("EXPERIMENT", "STATE", "ROUTES", "STARTED", "ASSIGNED", "OUTCOMES", "VERDICT")
    _table(columns, map(_line, found))


@experiments.command()
def show(name: Name, admin_url: AdminURL = ADMIN_URL, output: Output = Format.table) -> None:
    """Show how an experiment is set up, and how it stands."""
    with administration(admin_url) as admin:
        status = admin.experiment(name)
    if output is not Format.table:
        print_document(status, output)
        return
    _print_standing(status)
    console.print()
    _table(("ARM", "WEIGHT", "SHARE NOW"), _arms(status))
    console.print()
    _table(("METRIC", "KIND", "GOOD IS AN", "PART"), _metrics(status["experiment"]))


@experiments.command()
def result(name: Name, admin_url: AdminURL = ADMIN_URL, output: Output = Format.table) -> None:
    """Show what an experiment says by now. It may be read at any time, and as often as you like."""
    with administration(admin_url) as admin:
        status = admin.experiment(name)
    said = status["result"]
    if output is not Format.table:
        print_document(said, output)
    elif said is None:
        console.print(f"'{escape(name)}' has never been started", highlight=False)
    else:
        _print_result(status, said)


@experiments.command()
def start(name: Name, admin_url: AdminURL = ADMIN_URL) -> None:
    """Start a new run. What a former run has seen is forgotten, and callers fall to arms anew."""
    with administration(admin_url) as admin:
        _print_standing(admin.start_experiment(name))


@experiments.command()
def stop(name: Name, admin_url: AdminURL = ADMIN_URL) -> None:
    """Stop assigning callers: the control answers everything. Outcomes may still come."""
    with administration(admin_url) as admin:
        status = admin.stop_experiment(name)
    _print_standing(status)
    console.print(escape(status["result"]["sentence"]), highlight=False)


def _print_standing(status: Row) -> None:
    name, routes = escape(status["name"]), escape(", ".join(status["routes"]) or "none")
    console.print(f"experiment {name} is {status['state']}; routes: {routes}", style="bold", highlight=False)
    if status["started"] is None:
        return
    times = f"started {_time(status['started'])}"
    if status["stopped"] is not None:
        times += f", stopped {_time(status['stopped'])}"
    console.print(times, highlight=False)
    figures = ", ".join(f"{status[figure]} {figure}" for figure in ("assigned", "outcomes", "waiting", "lost"))
    console.print(figures, highlight=False)


def _print_result(status: Row, said: Row) -> None:
    console.print(escape(said["sentence"]), style=STYLES[said["verdict"]] if said["valid"] else "red", highlight=False)
    console.print()
    primary = status["experiment"]["primary"]["metric"]
    _table(("ARM", "ASSIGNED", "OUTCOMES", f"MEAN {primary}", "INTERVAL"), map(_mean, said["means"]))
    console.print()
    compared = [*said["effects"], *said["guardrails"]]
    control = status["experiment"]["control"]
    _table(("ARM", "METRIC", f"DIFFERENCE TO {control}", "INTERVAL", "VERDICT"), map(_effect, compared))


def _table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    print_table(columns, [[escape(str(cell)) for cell in row] for row in rows])


def _line(status: Row) -> tuple[Any, ...]:
    said, started = status["result"], status["started"]
    verdict = ("not valid" if not said["valid"] else said["winner"] or said["verdict"]) if said else "-"
    return (
        status["name"],
        status["state"],
        ", ".join(status["routes"]) or "-",
        _time(started) if started is not None else "-",
        status["assigned"],
        status["outcomes"],
        verdict,
    )


def _arms(status: Row) -> list[tuple[Any, ...]]:
    spec, shares = status["experiment"], status["shares"]
    return [
        (f"{arm} (control)" if arm == spec["control"] else arm, f"{weight:g}", _percent(shares.get(arm)))
        for arm, weight in spec["arms"].items()
    ]


def _metrics(spec: Row) -> list[tuple[str, ...]]:
    metrics = [(spec["primary"], "decides"), *((guardrail, "guardrail") for guardrail in spec["guardrails"])]
    return [(metric["metric"], metric["kind"], metric["direction"], part) for metric, part in metrics]


def _mean(mean: Row) -> tuple[Any, ...]:
    return mean["arm"], mean["assigned"], mean["observations"], _number(mean["mean"]), _interval(mean)


def _effect(effect: Row) -> tuple[Any, ...]:
    difference = _number(effect["difference"], "+")
    return effect["arm"], effect["metric"], difference, _interval(effect, "+"), effect["verdict"].replace("_", " ")


def _interval(row: Row, sign: str = "") -> str:
    return f"{_number(row['low'], sign)} to {_number(row['high'], sign)}"


def _number(value: float | None, sign: str = "") -> str:
    """What is not known, or not bounded, is null."""
    return "?" if value is None else f"{value:{sign}.4g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds").replace("+00:00", "Z")
