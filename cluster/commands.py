"""`nstarx up` and `nstarx down`. Ray is imported when they run, so that the other commands start without it."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
import yaml
from rich.live import Live
from rich.text import Text

from cluster import upfile
from nstarx.cli.documents import read_document
from nstarx.cli.output import console, print_warning
from nstarx.client import Admin
from nstarx.errors import NStarXError, Unavailable, Unsupported
from nstarx.spec.cluster import ClusterSpec
from nstarx.spec.record import parse
from nstarx.traffic import Reading, window

DOWN_S = 60.0
INTERVAL_S = 1.0
EXAMPLE = """curl -s {url}/v2/models/{model}/infer -H 'Content-Type: application/json' -d '{body}'"""
BODIES = {"iris": '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}'}

Config = Annotated[Path, typer.Argument(help="A YAML file: repository, gateway, versions, routes.")]
RayAddress = Annotated[
    str | None, typer.Option(help="Join this Ray cluster, host:port or auto, instead of starting one.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("up")(up)
    app.command("down")(down)


def up(
    config: Config,
    ray_address: RayAddress = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all is ready; `nstarx down` ends it.")
    ] = False,
    serve_config: Annotated[
        bool, typer.Option("--serve-config", help="Print the same for `serve deploy`, and end.")
    ] = False,
) -> None:
    """Bring up gateways and versions, and show their traffic until Ctrl-C."""
    spec = parse(ClusterSpec, read_document(config, "versions: [{version: iris@1.0.0}]"), str(config))
    if serve_config:
        typer.echo(yaml.safe_dump(spec.serve_config(), sort_keys=False), nl=False)
    elif detach:
        _detach(config, ray_address, spec.gateway.admin_port)
    else:
        _run(spec, ray_address)


def down(
    admin_port: Annotated[int, typer.Option(min=1, max=65535, help="Administration port of what is up.")] = 8081,
) -> None:
    """End what `nstarx up` brought up: drain, then stop."""
    known = upfile.read(admin_port)
    if known is None:
        raise Unavailable(
            f"nothing that `nstarx up` started is known with administration port {admin_port}; name its port with "
            "--admin-port, or end what `serve deploy` started with `serve shutdown`"
        )
    if not known.alive():
        from cluster.bringup import take_down

        take_down(known, admin_port)
        console.print("its process was gone already; what it left is removed")
        return
    os.kill(known.pid, signal.SIGTERM)
    until = time.monotonic() + DOWN_S
    while known.alive():
        if time.monotonic() > until:
            raise Unavailable(f"process {known.pid} has not ended within {DOWN_S:g} s")
        time.sleep(0.1)
    console.print("down")


def _run(spec: ClusterSpec, ray_address: str | None) -> None:
    if importlib.util.find_spec("ray") is None:
        raise Unsupported("this needs the server side; install it with: pip install 'nstarx[server]'")
    began = time.monotonic()

    def tell(sentence: str) -> None:
        line = Text.assemble((f"{time.monotonic() - began:5.1f} s", "dim"), "  ", sentence)
        console.print(line, soft_wrap=True)

    tell("importing Ray")
    from cluster.bringup import Cluster
    from cluster.preflight import unserved

    for sentence in unserved(spec):
        print_warning(sentence)
    cluster = Cluster(spec, ray_address, tell)
    try:
        cluster.start(on_ray=lambda: signal.signal(signal.SIGTERM, _interrupt))
        _welcome(cluster.url, cluster.admin_url, spec)
        with Admin(cluster.admin_url, timeout_s=5) as admin:
            _watch(admin)
    except KeyboardInterrupt:
        console.print("\ndraining and stopping", highlight=False)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        cluster.stop()


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _welcome(url: str, admin_url: str, spec: ClusterSpec) -> None:
    model = next((v.version.partition("@")[0] for v in spec.versions if v.version.startswith("iris@")), None)
    console.print(
        f"\ninference       {url}/v2\nadministration  {admin_url}/status  {admin_url}/metrics", highlight=False
    )
    if model:
        # Not through rich, which would wrap the line and break it for pasting.
        typer.echo("\n" + EXAMPLE.format(url=url, model=model, body=BODIES[model]) + "\n")
    console.print("Ctrl-C drains and stops.\n", style="dim")


def _watch(admin: Admin) -> NoReturn:
    """One line about the last second, again and again."""
    before: Reading = []
    seen = time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            time.sleep(INTERVAL_S if console.is_terminal else 10 * INTERVAL_S)
            with contextlib.suppress(NStarXError):
                after, now = admin.traffic(), time.monotonic()
                if before or not after:
                    line = window(before, after, now - seen).line()
                    live.update(line, refresh=True) if console.is_terminal else console.print(line)
                before, seen = after, now


def _detach(config: Path, ray_address: str | None, admin_port: int) -> None:
    """The same command in a session of its own; wait until it is ready or has failed."""
    log = Path(f"nstarx-{admin_port}.log").resolve()
    command = [sys.executable, "-m", "nstarx.cli", "up", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *(["--ray-address", ray_address] if ray_address else [])],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    while b"Ctrl-C drains" not in log.read_bytes():
        if process.poll() is not None:
            typer.echo(log.read_text(), err=True)
            raise Unavailable(f"it did not come up; its log is {log}")
        time.sleep(0.1)
    console.print(Text(f"up; log: {log}; `nstarx down --admin-port {admin_port}` ends it"), soft_wrap=True)
