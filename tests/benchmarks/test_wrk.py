import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import orjson
import pytest

from benchmarks import wrk

needs_wrk = pytest.mark.skipif(not wrk.installed(), reason="needs the load generator wrk")

REPORT = """Running 5s test @ http://127.0.0.1:8080/v2/models/iris/infer
  1 threads and 32 connections
Requests/sec:   4150.20
{"requests":20751,"seconds":5.000010,"p50_ms":7.571,"p99_ms":13.359,"errors":2,"wrong":1}
"""


def test_line_of_json_below_the_report_is_read() -> None:
    load = wrk.parse(REPORT)
    assert load == wrk.Load(requests=20751, seconds=5.00001, p50_ms=7.571, p99_ms=13.359, errors=2, wrong=1)
    assert load.requests_per_second == pytest.approx(4150.19, abs=0.01)


def test_report_without_json_says_what_wrk_said() -> None:
    with pytest.raises(wrk.LoadFailed, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


@needs_wrk
def test_nobody_to_load_is_a_failure() -> None:
    with pytest.raises(wrk.LoadFailed, match="unable to connect"):
        wrk.run("http://127.0.0.1:1/", connections=1, seconds=1)


class Answers(BaseHTTPRequestHandler):
    """Labels every flower 1, whichever was asked for, unless `honest`."""

    protocol_version = "HTTP/1.1"
    honest: ClassVar[bool]

    def do_POST(self) -> None:
        request = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        label = int(request["id"]) if self.honest else 1
        outputs = [{"name": "label", "shape": [1], "datatype": "INT64", "data": [label]}]
        body = orjson.dumps({"id": request["id"], "outputs": outputs})
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v2/models/iris/infer"
    server.shutdown()
    server.server_close()
    thread.join()


@needs_wrk
@pytest.mark.parametrize(("honest", "share"), [(True, 0), (False, 2 / 3)])
def test_answers_with_the_label_of_another_request_are_counted_as_wrong(
    server: str, honest: bool, share: float
) -> None:
    Answers.honest = honest
    load = wrk.run(server, connections=1, seconds=1)
    assert load.requests > 3
    assert load.errors == 0
    assert load.wrong == pytest.approx(share * load.requests, abs=2)
