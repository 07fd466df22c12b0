"""The service under everything that a socket can bring: the right 4xx, and unharmed after it."""

import json
import socket
import time

import pytest

from tests.serving_process import (
    Running,
    question,
    read_response,
    request,
    serving_process,
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One process for all of them: whatever one test does must not harm the next."""
    with serving_process(
        tmp_path_factory.mktemp("service") / "log",
        request_seconds=1,
        max_body_bytes=4096,
        log_sample=1,
        log_format="json",
    ) as service:
        yield service


@pytest.fixture(autouse=True)
def unharmed(running: Running):
    yield
    status, _, body = running.ask(question("951+11="))
    assert (status, json.loads(body)["predicted_answer"]) == (200, "962")


def test_a_right_answer_over_a_real_socket(running):
    status, headers, body = running.ask(question("7-12="))
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["full_output"] == "7-12=-5"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("", 422, "missing"),
        ("{", 422, "json_invalid"),
        ("nul", 422, "json_invalid"),
        ("null", 422, "model_attributes_type"),
        ("[]", 422, "model_attributes_type"),
        ('{"equation": null}', 422, "string_type"),
        ('{"equation": NaN}', 422, "string_type"),
        ('{"equation": 1e999}', 422, "string_type"),
        ('{"equation": ' + "9" * 3000 + "}", 422, "string_type"),
        ('{"equation": "' + "9" * 3000 + '+1="}', 422, "string_too_long"),
        ('{"equation": "999999999999999999999+1="}', 422, "more than 3 digits"),
        ('{"equation": "٣+٤="}', 422, "character"),
        ('{"equation": "1+1=", "equation": "1+"}', 422, "does not end"),
        ('{"equation": "1+1=", "beam_width": 0}', 422, "greater_than_equal"),
        ('{"equation": "1+1=\\u0000"}', 422, "character"),
        ('{"equation": "\\ud800"}', 422, "string_unicode"),
        ("[" * 2000 + "]" * 2000, None, "detail"),
        (b'\xff\xfe{"equation"', None, "detail"),
        (b'{"equation": "1+1=\xff"}', None, "detail"),
    ],
)
def test_bodies_that_are_no_question_get_a_4xx_that_says_why(running, body, status, says):
    got, _, answer = running.ask(request(body))
    assert got == status if status else 400 <= got < 500
    detail = json.loads(answer)["detail"]
    assert detail
    assert says in json.dumps(json.loads(answer), ensure_ascii=False)


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "", "a", "multipart/x"])
def test_another_media_type_is_415(running, media_type):
    status, _, body = running.ask(request('{"equation": "1+1="}', f"Content-Type: {media_type}"))
    assert status == 415
    assert "application/json" in json.loads(body)["detail"]


def test_a_media_type_with_a_charset_is_json(running):
    raw = request('{"equation": "1+1="}', "Content-Type: application/json; charset=utf-8")
    assert running.ask(raw)[0] == 200


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (request("x" * 5000), 413),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (
            b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 5,
            413,
        ),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://example.com HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PATCH /predict HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (request(None, path="/predict"), 405),
        (request(None, path="/nothing"), 404),
    ],
)
def test_what_is_no_request_of_ours_is_refused_with_a_body(running, raw, status):
    got, _, body = running.ask(raw)
    assert got == status
    assert json.loads(body)["detail"]


def test_a_refused_body_is_answered_even_while_its_client_still_sends(running):
    """Closing with unread data would reset the connection, and the reason would be lost."""
    with running.connect() as connection:
        connection.sendall(request("x" * 5000)[:200])
        for _ in range(20):
            connection.sendall(b"x" * 1000)
        assert read_response(connection)[0] == 413


def test_a_body_in_pieces_is_bounded_as_a_whole(running):
    with running.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(8):
            time.sleep(0.03)
            connection.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert read_response(connection)[0] == 413


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"POST /pre",
        b"POST /predict HTTP/1.1\r\nHost: x\r\n",
        request('{"equation": "1+1="}')[:-3],
    ],
)
def test_a_slow_client_is_told_and_dropped(running, part):
    with running.connect() as connection:
        connection.sendall(part)
        if part:
            status, headers, body = read_response(connection)
            assert (status, headers["connection"]) == (408, "close")
            assert "within 1 s" in json.loads(body)["detail"]
        assert connection.recv(100) == b""


def test_a_byte_now_and_then_does_not_keep_a_request_open(running):
    """Slowloris: the time is that of the whole request, not of a pause."""
    with running.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
        answered = b""
        for _ in range(50):
            connection.sendall(b"X-A: b\r\n")
            connection.settimeout(0.1)
            try:
                answered = connection.recv(1000)
            except TimeoutError:
                continue
            break
        assert answered.startswith(b"HTTP/1.1 408 ")


def test_a_request_that_begins_behind_another_has_its_time_too(running):
    """In one piece with the one before it, and then silence."""
    with running.connect() as connection:
        connection.sendall(request(None, path="/livez") + question("1+1=")[:-3])
        assert read_response(connection)[0] == 200
        assert read_response(connection)[0] == 408
        assert connection.recv(100) == b""


def test_a_body_behind_another_request_is_read_as_it_is(running):
    """What looks like a header in it is none, and not a byte of it may be lost."""
    body = b'{"equation": "7+2="}\r\nupgrade: h2c\r\n'
    with running.connect() as connection:
        whole = request(None, path="/livez") + request(body)
        connection.sendall(whole[: -len(body)])
        assert read_response(connection)[0] == 200
        connection.sendall(body + question("951+11="))
        assert read_response(connection)[0] == 422
        status, _, answer = read_response(connection)
        assert (status, json.loads(answer)["predicted_answer"]) == (200, "962")


def test_a_head_that_is_cut_in_a_wish_for_another_protocol_keeps_its_headers(running):
    raw = question("7+2=", "X-Request-ID: abc", "Upgrade: h2c", "Connection: Upgrade")
    cut = raw.index(b"Upgrade: h2") + len(b"Upgrade: h2")
    with running.connect() as connection:
        connection.sendall(raw[:cut])
        time.sleep(0.1)
        connection.sendall(raw[cut:])
        assert read_response(connection)[1]["x-request-id"] == "abc"


def test_a_trailer_is_no_header(running):
    """It could name another address, or another key, than a proxy let through."""
    body = b'{"equation": "7+2="}'
    raw = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-Request-ID: forged\r\n\r\n"
    ) % (len(body), body)
    status, headers, _ = running.ask(raw)
    assert status == 200
    assert headers["x-request-id"] != "forged"


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/invocations"])
def test_a_client_that_leaves_in_its_body_is_counted_as_gone(running, path):
    name = f'arithmetic_requests_total{{outcome="gone",route="{path}"}} '

    def gone() -> float:
        metrics = running.ask(request(None, path="/metrics"))[2].decode()
        return float(metrics.partition(name)[2].partition("\n")[0] or 0)

    before = gone()
    with running.connect() as connection:
        connection.sendall(request('{"equations": ["1+1="]}', path=path)[:-5])
        time.sleep(0.1)
    deadline = time.monotonic() + 10
    while gone() == before:
        assert time.monotonic() < deadline, f"{name} is still {before}"
        time.sleep(0.1)
    assert gone() == before + 1
    assert "Traceback" not in running.log.read_text()


def test_pipelined_requests_are_answered_in_order(running):
    with running.connect() as connection:
        connection.sendall(b"".join(question(f"{n}+1=") for n in range(50)))
        received = b""
        while received.count(b"predicted_answer") < 50:
            received += connection.recv(65536)
        answers = [json.loads(x.partition(b"}")[0] + b"}") for x in split_bodies(received)]
    assert [answer["predicted_answer"] for answer in answers] == [str(n + 1) for n in range(50)]


def split_bodies(received: bytes) -> list[bytes]:
    return [b'{"equation"' + piece for piece in received.split(b'{"equation"')[1:]]


def test_nonsense_behind_a_good_request_is_refused_after_its_answer(running):
    with running.connect() as connection:
        connection.sendall(question("1+1=") + b"nonsense\r\n\r\n")
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.index(b'"predicted_answer":"2"') < received.index(b"HTTP/1.1 400 ")


def test_clients_that_leave_in_the_middle_harm_nobody(running):
    for part in (question("1+1=")[:60], question("1+1="), question("1+1=") * 20):
        for _ in range(10):
            with running.connect() as connection:
                connection.sendall(part)
                # Gone by a reset, which is what a killed client leaves.
                linger = b"\x01\0\0\0\0\0\0\0"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def test_expect_100_and_http_1_0_work(running):
    with running.connect() as connection:
        whole = question("1+1=", "Expect: 100-continue")
        head, _, body = whole.partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert read_response(connection)[0] == 200
    with running.connect() as connection:
        connection.sendall(question("1+1=").replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert read_response(connection)[1]["connection"] == "close"
        assert connection.recv(10) == b""


@pytest.mark.parametrize("wish", ["h2c", "websocket"])
def test_a_wish_for_another_protocol_is_answered_as_http(running, wish):
    """Java's client sends its first POST like this."""
    raw = question("1+1=", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {wish}")
    with running.connect() as connection:
        for _ in range(2):
            connection.sendall(raw)
            status, _, body = read_response(connection)
            assert (status, json.loads(body)["predicted_answer"]) == (200, "2")


def test_request_ids_are_returned_if_sensible_and_logged(running):
    headers = running.ask(question("1+1=", "X-Request-ID: mine-17"))[1]
    assert headers["x-request-id"] == "mine-17"
    other = running.ask(question("1+1=", "X-Request-ID: " + "x" * 200))[1]["x-request-id"]
    assert 0 < len(other) < 40
    for path in ("/health", "/predict", "/nothing"):
        answer = running.ask(request(None, "X-Request-ID: mine-18", path=path))
        assert answer[1]["x-request-id"] == "mine-18"
    lines = [json.loads(line) for line in log_lines(running)]
    (mine,) = [line for line in lines if line.get("request_id") == "mine-17"]
    assert mine["milliseconds"] > 0
    assert {key: mine[key] for key in ("method", "route", "status", "outcome", "version")} == {
        "method": "POST",
        "route": "/predict",
        "status": 200,
        "outcome": "answered",
        "version": "7",
    }


def log_lines(running: Running) -> list[str]:
    return [line for line in running.log.read_text().splitlines() if line.startswith("{")]
