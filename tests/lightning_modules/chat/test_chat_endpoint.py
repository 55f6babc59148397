"""Models behind an endpoint: a real `transformers serve` on loopback, and a server that does what it is told."""

import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from lightning_modules.chat.endpoint import ChatEndpoint, is_loopback
from lightning_modules.chat.models import ChatDecoding, LocalChatModel

pytest.importorskip("openai")
CPU = torch.device("cpu")
GREEDY = ChatDecoding(temperature=0, max_new_tokens=12)
SECRET = "something that a person wrote"


def asked(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


class ScriptedServer(ThreadingHTTPServer):
    """Answers with what `script` holds, first to last: a status, a whole answer as bytes, or the text of an answer;
    and then with the question."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests, self.keys = [], [], []
        self.lock, self.under_way, self.most_under_way, self.seconds = threading.Lock(), 0, 0, 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(body)
            server.keys.append(self.headers["Authorization"])
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
            say = server.script.pop(0) if server.script else f"so, {body['messages'][-1]['content']}"
        time.sleep(server.seconds)
        with server.lock:
            server.under_way -= 1
        if isinstance(say, bytes):
            return self.send(200, say)
        if isinstance(say, int):
            return self.send(say, json.dumps({"error": {"message": f"what is this: {body['messages']}"}}).encode())
        message = {"role": "assistant", "content": say}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        choices = [{"index": 0, "message": message, "finish_reason": "length" if not say else "stop"}]
        whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
        self.send(200, json.dumps(whole).encode())

    def send(self, status, data):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After-Ms", "1")  # the client waits as long as a server asks for
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    scripted = ScriptedServer()
    thread = threading.Thread(target=scripted.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield scripted
    scripted.shutdown()
    scripted.server_close()
    thread.join()


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Builds endpoints that keep their answers in one directory."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def build(url, **settings):
        endpoint = ChatEndpoint("m", url, **{"cache": tmp_path / "answers", "max_retries": 2, **settings})
        endpoint.open(CPU)
        return endpoint

    return build


# ---- a real server


def test_transformers_serve_answers_as_the_model_itself(transformers_serve, chat_directory, tmp_path):
    local = LocalChatModel(chat_directory)
    endpoint = ChatEndpoint(str(chat_directory), transformers_serve, cache=tmp_path)
    for model in (local, endpoint):
        model.open(CPU)
    prompts = asked("hi", "a much longer question than that", "猫")
    expected = [[text.strip() for text in candidates] for candidates in local.replies(prompts, GREEDY)]
    assert endpoint.replies(prompts, GREEDY) == expected
    assert endpoint.usage == local.usage
    assert endpoint.name == f"chat at {transformers_serve.split('/')[2]}"
    ((*candidates,),) = endpoint.replies(asked("hi"), ChatDecoding(num_candidates=3, max_new_tokens=12))
    assert len(set(candidates)) == 3
    assert all(candidates)


def test_a_model_that_transformers_serve_has_not(transformers_serve, tmp_path):
    endpoint = ChatEndpoint("another", transformers_serve, cache=tmp_path, max_retries=0)
    endpoint.open(CPU)
    with pytest.raises(ValueError, match="status 400: it does not take the request: look at model.chat_model.model"):
        endpoint.replies(asked("hi"), GREEDY)


# ---- what is asked


def test_a_request_is_what_it_should_be(server, opened, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sesame")
    endpoint = opened(server.url, api_key_variable="MY_KEY", seed=5, concurrency=1)
    answers = endpoint.replies(asked("a", "b"), ChatDecoding(2, temperature=0.7, top_p=0.8, max_new_tokens=9))
    assert answers == [["so, a"] * 2, ["so, b"] * 2]
    settings = {"model": "m", "temperature": 0.7, "top_p": 0.8, "max_tokens": 9}
    assert server.requests == [
        {**settings, "messages": [{"role": "user", "content": text}], "seed": seed} for text in "ab" for seed in (5, 6)
    ]
    assert set(server.keys) == {"Bearer sesame"}


def test_fields_of_a_request_are_replaced_added_and_left_out(server, opened):
    request = {"max_tokens": None, "top_p": None, "seed": None, "max_completion_tokens": 500, "reasoning_effort": "low"}
    opened(server.url, request=request).replies(asked("a"), GREEDY)
    (body,) = server.requests
    assert body.keys() == {"model", "messages", "temperature", "max_completion_tokens", "reasoning_effort"}
    assert (body["max_completion_tokens"], body["temperature"]) == (500, 0)


def test_so_many_at_once_and_in_order(server, opened):
    server.seconds = 0.05
    texts = [str(number) for number in range(12)]
    answers = opened(server.url, concurrency=4).replies(asked(*texts), GREEDY)
    assert answers == [[f"so, {text}"] for text in texts]
    assert server.most_under_way == 4


def test_a_proxy_does_not_get_what_stays_here(server, opened, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert opened(server.url, max_retries=0).replies(asked("a"), GREEDY) == [["so, a"]]


# ---- answers that are kept


def test_a_second_run_asks_nothing_and_counts_the_same(server, opened):
    prices = {"price_per_million": (2.0, 30.0)}
    first, second = opened(server.url, **prices), opened(server.url, concurrency=1, **prices)
    answers = first.replies(asked("a", "b"), GREEDY)
    assert len(server.requests) == 2
    assert second.replies(asked("b", "c", "a"), GREEDY) == [answers[1], ["so, c"], answers[0]]
    assert len(server.requests) == 3
    assert opened(server.url).replies(asked("d", "d", "d"), GREEDY) == [["so, d"]] * 3
    assert len(server.requests) == 4
    assert (first.usage.answers, first.usage.from_cache) == (2, 0)
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (200, 20)
    assert first.usage.cost == first.usage.paid == pytest.approx(2 * (100 * 2 + 10 * 30) / 1e6)
    assert (second.usage.answers, second.usage.from_cache, second.usage.prompt_tokens) == (3, 2, 300)
    assert (second.usage.cost, second.usage.paid) == (pytest.approx(3 * 5e-4), pytest.approx(5e-4))


@pytest.mark.parametrize(
    ("settings", "decoding"),
    [
        ({"seed": 1}, GREEDY),
        ({"request": {"stop": ["\n"]}}, GREEDY),
        ({}, ChatDecoding(temperature=0.5, max_new_tokens=12)),
        ({}, ChatDecoding(temperature=0, max_new_tokens=13)),
    ],
)
def test_other_settings_are_another_question(server, opened, settings, decoding):
    opened(server.url).replies(asked("a"), GREEDY)
    opened(server.url, **settings).replies(asked("a"), decoding)
    assert len(server.requests) == 2


def test_what_came_before_a_failure_is_kept(server, opened, tmp_path):
    server.script = ["one", "two", 400]
    with pytest.raises(ValueError, match="status 400"):
        opened(server.url, concurrency=1).replies(asked("a", "b", "c", "d", "e"), GREEDY)
    asked_before = len(server.requests)  # at most one more was under way
    assert asked_before in (3, 4)
    answers = opened(server.url, concurrency=1).replies(asked("a", "b", "c", "d", "e"), GREEDY)
    assert answers == [["one"], ["two"], ["so, c"], ["so, d"], ["so, e"]]
    assert len(server.requests) == asked_before + 5 - (asked_before - 1)
    assert not list((tmp_path / "answers").rglob("*.partial"))


# ---- what goes wrong


@pytest.mark.parametrize("failing", [[503, 503], [429, 500]])
def test_a_server_that_fails_twice_is_asked_a_third_time(server, opened, failing):
    server.script = [*failing, "fine"]
    assert opened(server.url).replies(asked("a"), GREEDY) == [["fine"]]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "num_requests", "message"),
    [
        (401, 1, "it refuses the key in OPENAI_API_KEY"),
        (403, 1, "it refuses the key in OPENAI_API_KEY"),
        (404, 1, "it has no model 'm', or base_url is not its API's"),
        (308, 1, "it has no model 'm', or base_url is not its API's"),
        (422, 1, "it does not take the request"),
        (429, 3, "too many requests, or no credit"),
        (500, 3, "it failed 3 times; look at the server's log"),
    ],
)
def test_what_a_status_means_is_said_and_nobody_is_quoted(
    server, opened, status, num_requests, message, capsys, caplog
):
    server.script = [status] * 9
    with pytest.raises(ValueError, match=f"answered with status {status}: {message}") as refused:
        opened(server.url).replies(asked(SECRET), GREEDY)
    assert len(server.requests) == num_requests
    assert refused.value.__suppress_context__
    assert SECRET not in str(refused.value) + caplog.text + "".join(capsys.readouterr())


@pytest.fixture
def waits(monkeypatch):
    """How long the endpoint would have waited, s."""
    found = []

    async def sleep(seconds):
        found.append(seconds)

    monkeypatch.setattr("lightning_modules.chat.endpoint.sleep", sleep)
    return found


def test_an_empty_answer_is_asked_for_again_later_and_with_another_seed(server, opened, waits):
    server.script = ["", " \n", "at last"]
    endpoint = opened(server.url)
    assert endpoint.replies(asked("a"), GREEDY) == [["at last"]]
    assert [body["seed"] for body in server.requests] == [0, 1, 2]
    assert (endpoint.usage.prompt_tokens, endpoint.usage.completion_tokens) == (300, 30)  # all of it was paid
    assert [seconds for seconds in waits if seconds] == [0.5, 1.0]  # the server waits for no time


def test_a_kept_answer_that_cannot_be_read_is_asked_for_again(server, opened, tmp_path):
    assert opened(server.url).replies(asked("a"), GREEDY) == [["so, a"]]
    (kept,) = (tmp_path / "answers").rglob("*.json")
    # the question is not in it
    assert json.loads(kept.read_text()) == {"text": "so, a", "prompt_tokens": 100, "completion_tokens": 10}
    for damage in ("", '{"text": "so', '{"other": 1}', "[]"):
        kept.write_text(damage)
        assert opened(server.url).replies(asked("a"), GREEDY) == [["so, a"]]
    assert len(server.requests) == 5
    assert opened(server.url).replies(asked("a"), GREEDY) == [["so, a"]]
    assert len(server.requests) == 5  # it is mended


def test_nothing_but_empty_answers(server, opened, tmp_path, waits):
    server.script = [""] * 9
    with pytest.raises(ValueError, match=r"an empty answer 3 times \(finish_reason 'length'\).*max_new_tokens"):
        opened(server.url).replies(asked("a"), GREEDY)
    assert not list((tmp_path / "answers").rglob("*.json"))


@pytest.mark.parametrize(
    "answer",
    [
        *(
            b"<html>",
            b'{"hello": "world"}',
            b'{"choices": []}',
            b'{"choices": [{}]}',
            b"\xff\xfe",
            b"[]",
            b"5",
            b"null",
        ),
        *(b'{"choices": 5}', b'{"choices": ["a"]}', b'{"choices": [{"message": "hi"}]}'),
        *(b'{"choices": [{"message": {"content": ["hi"]}}]}', b'{"choices": [{"message": {"content": 7}}]}'),
    ],
)
def test_what_is_not_such_an_endpoint(server, opened, answer):
    server.script = [answer]
    with pytest.raises(ValueError, match=r"is no OpenAI-compatible API; .*base_url usually ends in /v1"):
        opened(server.url).replies(asked("a"), GREEDY)


@pytest.mark.parametrize("usage", ["null", "{}", '{"prompt_tokens": null, "completion_tokens": null}'])
def test_what_a_server_does_not_count_and_what_no_file_can_hold(server, opened, usage):
    message = '{"message": {"content": "hi \\ud800"}, "finish_reason": null}'
    server.script = [f'{{"choices": [{message}], "usage": {usage}}}'.encode()]
    assert opened(server.url).replies(asked("a"), GREEDY) == [["hi ?"]]


def test_nobody_is_there(opened):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ValueError, match=rf"no answer from {url} after 2 attempts \(APIConnectionError\): is the serv"):
        opened(url, max_retries=1).replies(asked("a", "b", "c"), GREEDY)


def test_a_server_that_takes_too_long(server, opened):
    server.seconds = 1.0
    with pytest.raises(ValueError, match=r"\(APITimeoutError\).*model.chat_model.timeout long enough"):
        opened(server.url, max_retries=0, timeout=0.1).replies(asked("a"), GREEDY)


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_server_that_sends_a_byte_now_and_then(opened, part):
    """No single read waits for long, but the answer never ends."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                head = b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if part == "body" else b"X: ")
                connection.sendall(head)
                while not stop.wait(0.02):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        try:
            with pytest.raises(ValueError, match=r"no answer from .*\(APITimeoutError\)"):
                opened(url, max_retries=0, timeout=0.3).replies(asked("a"), GREEDY)
        finally:
            stop.set()
            thread.join()


# ---- what leaves this machine


def test_texts_are_encrypted_on_their_way():
    with pytest.raises(ValueError, match=r"api.example.com/v1 is not on this machine, and not encrypted; use https"):
        ChatEndpoint("m", "http://api.example.com/v1", allow_sending_text=True)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.8.8/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://0.0.0.0:8000/v1", False),
        ("http://192.168.0.2:8000/v1", False),
        ("https://api.example.com/v1", False),
        ("http://localhost.example.com/v1", False),
        ("http://127.0.0.1@example.com/v1", False),
    ],
)
def test_what_is_this_machine(url, here):
    assert is_loopback(url) is here


def test_texts_leave_this_machine_only_if_somebody_says_so(monkeypatch):
    url = "https://api.example.com/v1"
    with pytest.raises(ValueError, match=r"what people wrote.*set model.chat_model.allow_sending_text=true"):
        ChatEndpoint("m", url)
    endpoint = ChatEndpoint("m", url, allow_sending_text=True, api_key_variable="NO_SUCH_KEY")
    with pytest.raises(ValueError, match="no key for https://api.example.com/v1: set .* NO_SUCH_KEY"):
        endpoint.open(CPU)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://127.0.0.1/v1", "http:///v1"])
def test_what_is_no_url(url):
    with pytest.raises(ValueError, match="is not like http://127.0.0.1:8000/v1"):
        ChatEndpoint("m", url)
