"""What every contender has in common: a command to start, a URL to load, processes to weigh, and an end."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from benchmarks import processes

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "iris" / "1.0.0" / "model.onnx"
PATH = "/v2/models/iris/infer"
FIRST_REQUEST = b'{"id":"1","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[6.0,2.9,4.5,1.5]}]}'
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60


class ContenderUnavailable(Exception):
    """A contender that can't take part here, with the reason; the others go on."""


class Contender(ABC):
    """One way to serve iris. A subclass says how it is started and which of its processes requests pass through."""

    name: ClassVar[str]
    title: ClassVar[str]
    """The contender's row in the table."""

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """The command whose process serves until it is terminated."""

    def environment(self, folder: Path) -> dict[str, str]:
        """Environment variables beside the present ones; `folder` is empty and lasts as long as the server."""
        return {}

    def port(self) -> int:
        return free_port()

    def serves(self, process: psutil.Process) -> bool:
        """Whether requests pass through this process of the tree; CPU time and memory are those of all that do."""
        return True

    def check(self, server: "Server") -> str:
        """A sentence for the report about what was found running, after making sure that it is what it claims to be."""
        return ""

    def start(self) -> "Server":
        """Start, and return once the first inference request has been answered.

        Raises ContenderUnavailable when that doesn't happen within two minutes.
        """
        port = self.port()
        command = self.command(port)
        folder = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        environment = os.environ | {"BENCHMARK_MODEL": str(MODEL)} | self.environment(Path(folder.name))
        with open(Path(folder.name, "log"), "wb") as log:
            root = psutil.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        server = Server(self, f"http://127.0.0.1:{port}{PATH}", root, folder)
        try:
            server.wait_until_ready()
            server.note = self.check(server)
        except BaseException:
            server.stop()
            raise
        return server


@dataclass
class Server:
    """A contender that runs. Stops at the end of a `with` block."""

    contender: Contender
    url: str
    root: psutil.Process
    folder: tempfile.TemporaryDirectory[str]
    note: str = ""
    """What `Contender.check` found."""

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(self.url):
            if not self.root.is_running() or self.root.status() == psutil.STATUS_ZOMBIE:
                raise ContenderUnavailable(f"{self.contender.name} ended while starting: {self.last_words()}")
            if time.monotonic() > deadline:
                raise ContenderUnavailable(
                    f"{self.contender.name} did not answer within {START_TIMEOUT_S} s: {self.last_words()}"
                )
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """The processes that requests pass through."""
        return [process for process in processes.tree(self.root) if self.contender.serves(process)]

    def last_words(self) -> str:
        lines = Path(self.folder.name, "log").read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it wrote nothing"

    def stop(self) -> None:
        """End the root process, give it time to take its children along, and end those it left behind."""
        family = processes.tree(self.root)
        processes.end(family[:1], STOP_TIMEOUT_S)
        processes.end(family[1:])
        self.folder.cleanup()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def python(module: str, *arguments: object, interpreter: Path | str = sys.executable) -> list[str]:
    """Command that runs a module of this repository."""
    return [str(interpreter), "-m", module, *map(str, arguments)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers(url: str) -> bool:
    request = urllib.request.Request(url, FIRST_REQUEST, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
