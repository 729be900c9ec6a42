"""The users of the load test, for a few seconds, against a gateway that answers and against servers that don't.

locust runs in a process of its own: it replaces Python's sockets by its own.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.in_process import data_plane, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
LOCUST = [sys.executable, "-m", "locust", "-f", str(ROOT / "benchmarks" / "locustfile.py"), "--headless"]
KINDS = {f"{model}, {form}" for model in ("iris", "digits", "echo") for form in ("JSON", "binary")}
ANSWERS = {
    "iris": b'{"outputs":[{"name":"other","datatype":"INT64","shape":[1],"data":[7]}]}',
    "digits": b"[]",
    "echo": b"<html>",
}
"""Answers with status 200 that are none."""


def locust(url: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """10 users for 2 s."""
    users = ["--users", "10", "--spawn-rate", "10", "--run-time", "2s", "--host", url]
    return subprocess.run([*LOCUST, *users, *options], cwd=ROOT, capture_output=True, text=True, timeout=60)


def requests(report: str) -> dict[str, dict[str, Any]]:
    return {kind["name"]: kind for kind in json.loads(report)}


class Stranger(BaseHTTPRequestHandler):
    """Answers everything, and nothing that was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = ANSWERS[self.path.split("/")[3]]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not into the tests' output."""


@pytest.fixture
def stranger() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_kind_of_user_is_answered_rightly() -> None:
    with data_plane("iris@1.0.0", "digits@1.0.0", "echo@1.0.0") as (_, url):
        done = locust(url, "--json")
    assert done.returncode == 0, done.stderr
    report = requests(done.stdout)
    assert set(report) <= KINDS
    assert {name.partition(",")[0] for name in report} == {"iris", "digits", "echo"}
    assert not any(kind["num_failures"] for kind in report.values())


def test_answers_that_are_none_are_failures_that_say_what_came(stranger: str) -> None:
    done = locust(stranger, "--only-summary")
    assert done.returncode == 1
    assert "not an answer in V2, KeyError: 'label'" in done.stderr + done.stdout
    assert "not an answer in V2, TypeError" in done.stderr + done.stdout
    assert "not an answer in V2, JSONDecodeError" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_gateway_that_is_not_there_is_a_failure_that_says_so() -> None:
    done = locust(f"http://127.0.0.1:{free_port()}", "--only-summary")
    assert done.returncode == 1
    assert "Connection refused" in done.stderr + done.stdout
