"""What clients should not send, and how they leave: every answer is a V2 error, and nobody else notices."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.gateway import Gateway
from router.protocol import BODY, HEAD, LINGER_S
from tests.in_process import DataPlaneInProcess
from tests.router.wire import (
    FLAKY,
    IRIS,
    Wire,
    chunked,
    codes,
    connection,
    connections,
    flaky,
    hanging,
    in_flight,
    iris,
    later,
    post,
    request,
)

READY = request("GET", "/v2/health/ready")
GOOD = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}
SHARED = settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def tensor(**parts: Any) -> bytes:
    return orjson.dumps({"inputs": [{**GOOD, **parts}]})


# Bodies


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{not json", "JSON"),
        (b"", "JSON"),
        (b"[]", "object"),
        (b'{"inputs": [' + b"[" * 100_000, "JSON"),
        (b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [NaN, 1, 2, 3]}]}', "JSON"),
        (b"{}", "inputs"),
        (b'{"inputs": []}', "x"),
        (orjson.dumps({"inputs": [GOOD, GOOD]}), "x"),
        (orjson.dumps({"inputs": [{**GOOD, "name": "y"}]}), "y"),
        (tensor(data=[1.0, 2.0, 3.0]), "x"),
        (tensor(data=[[1.0, 2.0], [3.0]]), "x"),
        (tensor(data=["a", "b", "c", "d"]), "x"),
        (tensor(data=None), "x"),
        (tensor(datatype="INT32"), "datatype"),
        (tensor(datatype="FLOAT"), "datatype"),
        (tensor(shape=[-1, 4]), "shape"),
        (tensor(shape=[1 << 62, 4]), "shape"),
        (tensor(shape=[1 << 40, 1 << 40]), "shape"),
        (tensor(shape=[1.5, 4]), "shape"),
        (tensor(shape="1,4"), "shape"),
        (tensor(shape=[4]), "shape"),
        (orjson.dumps({"inputs": [GOOD], "outputs": [{"name": "nothing"}]}), "nothing"),
    ],
)
def test_body_that_makes_no_sense_is_refused_by_name_and_the_connection_goes_on(
    gateway: Gateway, body: bytes, words: str
) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, body)).answer()
        assert answer.status == 400
        assert words in answer.error
        assert wire.is_usable()


@pytest.mark.parametrize("length", ["-1", "many", "99999999999999999999", "1.5", ""])
def test_json_length_that_is_no_number_is_refused(gateway: Gateway, length: str) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, iris(), f"Inference-Header-Content-Length: {length}")).answer()
        assert answer.status == 400
        assert "inference-header-content-length" in answer.error
        assert wire.is_usable()


@pytest.mark.parametrize("length", [100_000, 4294967294])
def test_json_length_beyond_the_body_is_refused(gateway: Gateway, length: int) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, iris(), f"Inference-Header-Content-Length: {length}")).answer()
        assert answer.status == 400
        assert "Inference-Header-Content-Length" in answer.error
        assert wire.is_usable()


@pytest.mark.parametrize("size", [0, 15, 17])
def test_binary_data_of_another_size_than_its_shape_is_refused(gateway: Gateway, size: int) -> None:
    head = orjson.dumps(
        {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}}]}
    )
    with Wire(gateway) as wire:
        message = post(IRIS, head + bytes(size), f"Inference-Header-Content-Length: {len(head)}")
        answer = wire.send(message).answer()
        assert answer.status == 400
        assert "input 'x'" in answer.error
        assert wire.is_usable()


def test_truncated_binary_data_is_refused(gateway: Gateway) -> None:
    head = orjson.dumps(
        {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}
    )
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, head + bytes(7), f"Inference-Header-Content-Length: {len(head)}")).answer()
        assert answer.status == 400
        assert "input 'x'" in answer.error


@pytest.mark.parametrize("encoding", ["br", "gzip, deflate", "zstd"])
def test_unknown_content_encoding_is_refused(gateway: Gateway, encoding: str) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, iris(), f"Content-Encoding: {encoding}")).answer()
        assert (answer.status, encoding in answer.error) == (415, True)
        assert wire.is_usable()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_body_that_is_not_compressed_as_it_says_is_refused(gateway: Gateway, encoding: str) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, iris(), f"Content-Encoding: {encoding}")).answer()
        assert (answer.status, "Content-Encoding" in answer.error) == (400, True)
        assert wire.is_usable()


def test_wrong_content_type_is_refused(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, iris(), "Content-Type: text/csv")).answer()
        assert (answer.status, "text/csv" in answer.error) == (415, True)
        assert wire.send(post(IRIS, iris(), "Content-Type: application/json; charset=utf-8")).answer().status == 200


# Framing


def test_chunked_body_arrives_whole_however_it_is_cut(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        head, whole = request("POST", IRIS, "Transfer-Encoding: chunked"), wire.send(post(IRIS, iris(3))).answer().body
        for size in (1, 2, 7, 1000):
            assert wire.send(head + chunked(iris(3), size)).answer().body == whole


def test_request_arrives_byte_by_byte(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        message = request("POST", IRIS, "Transfer-Encoding: chunked") + chunked(iris(), 40)
        assert wire.send(*(bytes([byte]) for byte in message)).answer().status == 200
        assert wire.is_usable()


@SHARED
@given(cuts=st.lists(st.integers(0, 1000), max_size=6))
def test_pipelined_requests_are_answered_in_order_however_they_are_cut(gateway: Gateway, cuts: list[int]) -> None:
    stream = b"".join(
        [
            post(IRIS, iris(id="a")),
            READY,
            request("POST", IRIS, "Transfer-Encoding: chunked") + chunked(iris(id="b"), 50),
            post("/v2/models/none/infer", iris(id="c")),
            post(IRIS, b"nonsense"),
            request("GET", "/v2/models/iris"),
            post(FLAKY, flaky(2.0)),
            READY,
            post(IRIS, iris(id="d")),
        ]
    )
    edges = [0, *sorted(cut * len(stream) // 1000 for cut in cuts), len(stream)]
    with Wire(gateway) as wire:
        wire.send(*(stream[a:b] for a, b in pairwise(edges)))
        answers = [wire.answer() for _ in range(9)]
    assert [answer.status for answer in answers] == [200, 200, 200, 404, 400, 200, 200, 200, 200]
    assert [answers[place].json["id"] for place in (0, 2, 8)] == ["a", "b", "d"]
    assert answers[1].json == {"ready": True}
    assert answers[5].json["name"] == "iris"


def test_hundred_requests_in_one_write_are_answered(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        wire.send(b"".join(post(IRIS, iris(id=str(n))) for n in range(100)))
        assert [wire.answer().json["id"] for _ in range(100)] == [str(n) for n in range(100)]


@pytest.mark.parametrize(
    "message",
    [
        b"this is not HTTP\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x00\x00\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nno colon here\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n: nameless\r\n\r\n",
        b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET http://test HTTP/1.1\r\nHost: test\r\n\r\n",
        b"POST * HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n",
        b"GET /v2/\xff\xfe HTTP/1.1\r\nHost: test\r\n\r\n",
        request("POST", IRIS, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        request("POST", IRIS, "Content-Length: 5", "Content-Length: 6") + b"abcdef",
        request("POST", IRIS, "Content-Length: -5"),
        request("POST", IRIS, "Content-Length: 0x10"),
        request("POST", IRIS, "Content-Length: 99999999999999999999999"),
        request("POST", IRIS, "Transfer-Encoding: gzip") + b"abc",
        request("POST", IRIS, "Transfer-Encoding: chunked") + b"xyz\r\n",
        request("POST", IRIS, "Transfer-Encoding: chunked") + b"ffffffffffffffffff\r\n",
        request("POST", IRIS, "Transfer-Encoding: chunked") + b"3\r\nabcdef\r\n",
        request("POST", "/v2/repository/index", "Transfer-Encoding: chunked") + b"xyz\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_the_connection_closed(gateway: Gateway, message: bytes) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(message).answer()
        assert answer.status in (400, 404)
        assert answer.error
        if answer.status == 400:
            assert answer.headers["connection"] == "close"
            wire.leave()
            assert wire.is_closed()


def test_garbage_after_a_good_request_does_not_spoil_its_answer(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        wire.send(post(IRIS, iris(id="a")) + b"garbage\r\n\r\n")
        assert wire.answer().json["id"] == "a"
        assert wire.answer().status == 400
        wire.leave()
        assert wire.is_closed()


def test_broken_asgi_request_behind_a_slow_inference_waits_for_its_turn(
    served: DataPlaneInProcess, gateway: Gateway
) -> None:
    with Wire(gateway) as wire:
        with hanging(served):
            wire.send(post(FLAKY, flaky(4.0)))
            served.until(lambda: in_flight(gateway) == 1)
            wire.send(READY + request("POST", "/v2/repository/index", "Transfer-Encoding: chunked") + b"xyz\r\n")
            served.until(lambda: connection(wire).lingers)
        assert wire.answer().json["outputs"][0]["data"] == [8.0]
        assert wire.answer().json == {"ready": True}
        assert wire.answer().status == 400
        wire.leave()
        assert wire.is_closed()


def test_framing_that_breaks_after_the_answer_closes_without_a_second_one(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        head = request("POST", "/v2/models/none/infer", "Transfer-Encoding: chunked")
        assert wire.send(head).answer().status == 404
        wire.send(b"xyz\r\n")
        assert wire.is_closed()


# Limits


@pytest.mark.parametrize("path", [IRIS, "/v2/health/ready"])
@pytest.mark.parametrize(
    "headers",
    [["X: " + "y" * 5000], [f"X-{n}: y" for n in range(1000)], ["Y" * 5000 + ": y"]],
    ids=["long", "many", "name"],
)
def test_oversize_headers_are_refused(strict: Gateway, path: str, headers: list[str]) -> None:
    with Wire(strict) as wire:
        answer = wire.send(request("GET", path, *headers)).answer()
        assert (answer.status, "4096 bytes" in answer.error) == (431, True)
        wire.leave()
        assert wire.is_closed()


def test_oversize_request_line_is_refused(strict: Gateway) -> None:
    with Wire(strict) as wire:
        assert wire.send(request("GET", "/v2/" + "x" * 5000)).answer().status == 431


def test_head_that_never_ends_is_refused(served: DataPlaneInProcess, strict: Gateway) -> None:
    with Wire(strict) as wire:
        wire.send(b"GET /v2 HTTP/1.1\r\n")
        served.until(lambda: connection(wire).receiving == HEAD)
        wire.send(*[b"X: " + b"y" * 1000] * 10)
        assert wire.answer().status == 431


def test_trailer_that_never_ends_is_refused(served: DataPlaneInProcess, strict: Gateway) -> None:
    for path in (IRIS, "/v2/repository/index"):
        with Wire(strict) as wire:
            wire.send(request("POST", path, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n")
            served.until(lambda: connection(wire).receiving == BODY)
            wire.send(b"0\r\nX: ")
            served.until(lambda: 0 < connection(wire).pending < 10)
            wire.send(b"y" * 10_000)
            assert wire.answer().status == 431


def test_small_head_behind_a_large_body_is_not_taken_for_a_large_head(
    served: DataPlaneInProcess, strict: Gateway
) -> None:
    second = post(IRIS, iris(id="b"))
    with Wire(strict) as wire:
        wire.send(post(IRIS, iris(1500, id="a")) + second[:30])
        assert wire.answer().json["id"] == "a"
        assert wire.send(second[30:]).answer().json["id"] == "b"


def test_too_large_a_body_is_refused_at_once_and_the_client_can_read_why(strict: Gateway) -> None:
    with Wire(strict) as wire:
        wire.send(request("POST", IRIS, "Content-Length: 5000000"))
        answer = wire.answer()
        assert (answer.status, "100000 bytes" in answer.error) == (413, True)
        assert wire.is_closed_after_sending(bytes(3_000_000))


def test_chunked_body_is_refused_when_it_passes_the_limit(strict: Gateway) -> None:
    with Wire(strict) as wire:
        wire.send(request("POST", IRIS, "Transfer-Encoding: chunked"))
        try:
            for _ in range(200):
                wire.send(b"400\r\n" + bytes(1024) + b"\r\n")
        finally:
            assert wire.answer().status == 413


def test_body_of_tiny_chunks_costs_no_more_memory_than_it_has_bytes(
    served: DataPlaneInProcess, strict: Gateway
) -> None:
    with Wire(strict) as wire:
        wire.send(request("POST", IRIS, "Transfer-Encoding: chunked") + b"2\r\n  \r\n" * 10_000)
        served.until(lambda: (exchange := connection(wire).exchange) is not None and exchange.size == 20_000)
        exchange = connection(wire).exchange
        assert exchange is not None
        assert exchange.gathered is not None
        assert len(exchange.gathered) == 20_000


def test_post_without_length_is_refused(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(request("POST", IRIS)).answer()
        assert (answer.status, "Content-Length" in answer.error) == (411, True)
        assert wire.is_usable()


# Time


def test_slow_head_times_out(served: DataPlaneInProcess, strict: Gateway) -> None:
    with Wire(strict) as wire:
        wire.send(b"POST /v2/mod")
        served.until(lambda: bool(connection(wire).receiving))
        later(served, wire, 5.5)
        answer = wire.answer()
        assert (answer.status, "5 s" in answer.error) == (408, True)
        wire.leave()
        assert wire.is_closed()


@pytest.mark.parametrize("path", [IRIS, "/v2/repository/index"])
def test_slow_body_times_out(served: DataPlaneInProcess, strict: Gateway, path: str) -> None:
    with Wire(strict) as wire:
        wire.send(request("POST", path, "Content-Length: 100") + b"{")
        served.until(lambda: connection(wire).receiving == BODY)
        later(served, wire, 10.5)
        answer = wire.answer()
        assert (answer.status, "10 s" in answer.error) == (408, True)
        wire.leave()
        assert wire.is_closed()


def test_slow_body_of_a_request_already_answered_just_closes(served: DataPlaneInProcess, strict: Gateway) -> None:
    with Wire(strict) as wire:
        assert wire.send(request("POST", "/v2/models/none/infer", "Content-Length: 100")).answer().status == 404
        later(served, wire, 10.5)
        assert wire.is_closed()


@pytest.mark.parametrize("before", [b"", post(IRIS, iris()), READY, post(IRIS, b"nonsense")])
def test_idle_connection_is_closed(served: DataPlaneInProcess, gateway: Gateway, before: bytes) -> None:
    with Wire(gateway) as wire:
        if before:
            wire.send(before).answer()
        later(served, wire, 74.0)
        assert wire.is_usable()
        later(served, wire, 76.0)
        assert wire.is_closed()


def test_client_that_keeps_sending_after_its_refusal_is_cut(served: DataPlaneInProcess, strict: Gateway) -> None:
    with Wire(strict) as wire:
        assert wire.send(request("POST", IRIS, "Content-Length: 5000000") + bytes(1000)).answer().status == 413
        later(served, wire, LINGER_S + 0.5)
        assert wire.is_closed()


def test_request_behind_a_slow_one_is_not_late_while_nobody_reads_it(
    served: DataPlaneInProcess, strict: Gateway
) -> None:
    second = post(IRIS, iris(id="b"))
    with Wire(strict) as wire:
        with hanging(served):
            wire.send(post(FLAKY, flaky(1.0)) + second[:-10])
            served.until(lambda: connection(wire).flow.read_paused)
            later(served, wire, 60.0)
            later(served, wire, 60.0)
        assert wire.answer().status == 200
        assert wire.send(second[-10:]).answer().json["id"] == "b"


def test_slow_inference_is_no_idle_connection_and_outlasts_a_refusal_behind_it(
    served: DataPlaneInProcess, strict: Gateway
) -> None:
    with Wire(strict) as wire:
        with hanging(served):
            wire.send(post(FLAKY, flaky(1.0)))
            served.until(lambda: in_flight(strict) == 1)
            later(served, wire, 1000.0)
            wire.send(b"garbage\r\n\r\n")
            served.until(lambda: connection(wire).lingers)
            later(served, wire, 1000.0)
        assert wire.answer().status == 200
        assert wire.answer().status == 400


# Odd, and right


def test_wrong_method_is_told_the_right_one(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        for method, path, allowed in (
            ("GET", IRIS, "POST"),
            ("DELETE", IRIS, "POST"),
            ("PUT", "/v2", "GET"),
            ("GET", "/v2/repository/index", "POST"),
        ):
            answer = wire.send(request(method, path)).answer()
            assert answer.status == 405
            assert allowed in answer.headers["allow"]
            assert method in answer.error
        assert wire.is_usable()


def test_head_requests_have_no_body(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        assert wire.send(request("HEAD", "/v2/health/ready")).answer(head=True).status == 200
        assert wire.send(request("HEAD", IRIS)).answer(head=True).status == 405
        assert wire.is_usable()


@pytest.mark.parametrize(
    ("version", "headers"), [("1.0", []), ("1.0", ["Connection: keep-alive"]), ("1.1", ["Connection: close"])]
)
def test_connection_that_can_not_stay_is_closed_after_the_answer(
    gateway: Gateway, version: str, headers: list[str]
) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, iris(), *headers, version=version)).answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert wire.is_closed()


def test_body_is_asked_for_when_the_client_expects_that(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        wire.send(request("POST", IRIS, f"Content-Length: {len(iris())}", "Expect: 100-continue"))
        assert wire.line() + wire.line() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.send(iris()).answer().status == 200
        assert wire.is_usable()


def test_body_is_asked_for_only_when_the_earlier_answer_is_out(served: DataPlaneInProcess, gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        with hanging(served):
            wire.send(post(FLAKY, flaky(1.0)))
            served.until(lambda: in_flight(gateway) == 1)
            wire.send(request("POST", IRIS, f"Content-Length: {len(iris())}", "Expect: 100-continue"))
            served.until(lambda: connection(wire).flow.read_paused)
        assert wire.answer().json["model_name"] == "flaky"
        assert wire.line() + wire.line() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.send(iris()).answer().status == 200


@pytest.mark.parametrize(
    ("header", "status"), [("Content-Length: 5000000", 413), ("Content-Length: 10\r\nContent-Type: text/csv", 415)]
)
def test_client_that_waits_before_it_sends_hears_no_at_once(strict: Gateway, header: str, status: int) -> None:
    with Wire(strict) as wire:
        assert wire.send(request("POST", IRIS, header, "Expect: 100-continue")).answer().status == status
        wire.leave()
        assert wire.is_closed()


@pytest.mark.parametrize(
    "path",
    [
        IRIS + "?a=b",
        IRIS + "?",
        "/v2/models/%69ris/infer",
        "/v2/models/iris/%69nfer?x=%20",
        "/v2/models/iris/versions/1.0.0/infer",
        "/v2/models/iris/versions/1%2E0.0/infer",
        "http://test" + IRIS,
        "http://test:80" + IRIS + "?a=b",
    ],
)
def test_path_may_be_written_otherwise(gateway: Gateway, path: str) -> None:
    with Wire(gateway) as wire:
        assert wire.send(post(path, iris())).answer().status == 200
        assert wire.is_usable()


@pytest.mark.parametrize("offer", ["h2c", "websocket", "TLS/1.0"])
def test_offer_of_another_protocol_is_declined_and_the_request_answered(gateway: Gateway, offer: str) -> None:
    headers = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {offer}", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    with Wire(gateway) as wire:
        whole = post(IRIS, iris(id="a"), *headers)
        assert wire.send(whole).answer().json["id"] == "a"
        assert wire.send(whole[:-20]) is wire
        assert wire.send(whole[-20:]).answer().json["id"] == "a"
        assert wire.send(request("GET", "/v2", *headers)).answer().json["name"] == "nstarx"
        wire.send(whole * 50 + request("GET", "/v2", *headers))
        assert [wire.answer().status for _ in range(51)] == [200] * 51
        assert wire.is_usable()


def test_answers_tell_the_date(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        for message in (post(IRIS, iris()), post(IRIS, b"nonsense"), READY):
            assert wire.send(message).answer().headers["date"].endswith(" GMT")


def test_path_that_leads_nowhere_is_refused(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post("/v2/models/none/infer", iris())).answer()
        assert (answer.status, "iris" in answer.error) == (404, True)
        answer = wire.send(post("/v2/models/iris/versions/9.9.9/infer", iris())).answer()
        assert (answer.status, "1.0.0" in answer.error) == (404, True)
        answer = wire.send(request("GET", "/nothing/here")).answer()
        assert (answer.status, "/nothing/here" in answer.error) == (404, True)
        assert wire.is_usable()


# Clients that go away


@SHARED
@given(cut=st.integers(0, 1000), answers=st.integers(0, 3))
def test_client_may_leave_at_any_moment_and_others_get_their_answers(
    served: DataPlaneInProcess, gateway: Gateway, cut: int, answers: int
) -> None:
    stream = post(IRIS, iris(id="a")) + READY + post(IRIS, iris(2, id="b")) + post("/v2/models/none/infer", iris())
    end = cut * len(stream) // 1000
    with Wire(gateway) as other:
        with Wire(gateway) as leaving:
            leaving.send(stream[:end])
            other.send(post(IRIS, iris(id="other")))
            for _ in range(min(answers, [len(stream[:end]) >= n for n in (250, 500, 700)].count(True))):
                leaving.answer()
        assert other.answer().json["id"] == "other"
        assert other.is_usable()
    served.until(lambda: in_flight(gateway) == 0)


def test_work_of_a_client_that_left_is_cancelled_and_counted_once(served: DataPlaneInProcess, gateway: Gateway) -> None:
    before = codes(gateway, "flaky@1.0.0")
    with Wire(gateway) as staying, Wire(gateway) as leaving:
        with hanging(served) as replica:
            cancelled = replica.batcher.counters.cancelled
            staying.send(post(FLAKY, flaky(1.0)))
            served.until(lambda: len(replica.batcher._running) == 1)
            leaving.send(post(FLAKY, flaky(2.0)))
            served.until(lambda: in_flight(gateway) == 2)
            leaving.close()
            served.until(lambda: in_flight(gateway) == 1)
        assert staying.answer().status == 200
    after = codes(gateway, "flaky@1.0.0")
    assert {code: after[code] - before.get(code, 0) for code in (200, 499)} == {200: 1, 499: 1}
    served.until(lambda: replica.batcher.counters.cancelled == cancelled + 1)


def test_client_that_leaves_behind_its_pipeline_takes_all_of_it_along(
    served: DataPlaneInProcess, gateway: Gateway
) -> None:
    before = codes(gateway, "flaky@1.0.0")
    with hanging(served), Wire(gateway) as wire:
        wire.send(post(FLAKY, flaky(1.0)) + READY + post(FLAKY, flaky(2.0)) + post(FLAKY, flaky(3.0)))
        served.until(lambda: in_flight(gateway) == 1)
        end = connection(wire)
    served.until(lambda: in_flight(gateway) == 0 and end not in connections(gateway))
    after = codes(gateway, "flaky@1.0.0")
    assert sum(after.values()) - sum(before.values()) == 1


def test_client_that_leaves_in_the_middle_of_a_body_is_no_failure_of_the_gateway(
    served: DataPlaneInProcess, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with Wire(gateway) as wire:
        wire.send(request("POST", "/v2/repository/index", "Content-Length: 100") + b'{"rea')
        served.until(lambda: connection(wire).receiving == BODY)
        end = connection(wire)
    served.until(lambda: end not in connections(gateway) and not end.tasks)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_client_that_never_reads_stops_being_served_and_is_cut(served: DataPlaneInProcess, gateway: Gateway) -> None:
    before = codes(gateway, "iris@1.0.0").get(200, 0)
    with Wire(gateway, receive_buffer=4096) as wire:
        end = connection(wire)
        unsent = memoryview(post(IRIS, iris(3000)) * 400)

        def stalls() -> bool:
            nonlocal unsent
            unsent = unsent[wire.send_some(unsent) :]
            return bool(end.flow.write_paused and end.flow.read_paused)

        served.until(stalls)
        assert end.transport.get_write_buffer_size() < 1_000_000
        assert len(end.pipeline) < 20
        assert codes(gateway, "iris@1.0.0")[200] - before < 400
        later(served, wire, 76.0)
        served.until(lambda: end not in connections(gateway))


def test_client_that_pipelines_faster_than_it_is_answered_is_not_read_ahead(
    served: DataPlaneInProcess, gateway: Gateway
) -> None:
    longest = 0
    with Wire(gateway) as wire:
        end = connection(wire)
        unsent = memoryview(post(IRIS, iris(), "X: " + "y" * 10_000) * 2000)

        def all_sent() -> bool:
            nonlocal unsent, longest
            unsent = unsent[wire.send_some(unsent) :]
            longest = max(longest, len(end.pipeline))
            return not unsent

        served.until(all_sent)
        assert [wire.answer().status for _ in range(2000)] == [200] * 2000
    assert longest < 100


def test_client_that_reads_late_gets_every_answer(served: DataPlaneInProcess, gateway: Gateway) -> None:
    with Wire(gateway, receive_buffer=4096) as wire:
        end = connection(wire)
        message = b"".join(post(IRIS, iris(3000, id=str(n))) + (READY if n == 3 else b"") for n in range(60))
        unsent = memoryview(message)

        def stalls() -> bool:
            nonlocal unsent
            unsent = unsent[wire.send_some(unsent) :]
            return bool(end.flow.write_paused)

        served.until(stalls)
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(wire.send, bytes(unsent))
            answers = [wire.answer() for _ in range(61)]
            sending.result()
        assert [answer.json.get("id") for answer in answers] == [*"0123", None, *map(str, range(4, 60))]
        assert wire.is_usable()


def test_quiet_connection_does_not_keep_the_body_of_its_last_request(
    served: DataPlaneInProcess, gateway: Gateway
) -> None:
    with Wire(gateway) as wire:
        wire.send(post(IRIS, iris(1000))).answer()
        later(served, wire, 1.0)
        assert connection(wire).active.body == b""
        assert wire.is_usable()
