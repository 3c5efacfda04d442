"""The few-shot rival: what it asks, and that it is honest about how much was answered in time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from training.preflight.baseline import SHOTS, examples, few_shot, question
from training.recipe import TrainingError
from training.rows import Message, Row


class Endpoint:
    """An OpenAI endpoint that answers with the last user message's last word."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.free = threading.Event()
        self.free.set()
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.seen.append(body)
                outer.free.wait(30)
                said = body["messages"][-1]["content"].split()[-1]
                answer = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
                try:
                    self.send_response(outer.status)
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except BrokenPipeError:
                    return  # the asker had no more time

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.free.set()
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def row(line: int, user: str, said: str) -> Row:
    return Row(
        line, (Message("system", "rule"), Message("user", user), Message("assistant", said, learn=True))
    )


ROWS = tuple(row(n, f"say label{n % 5}", f"label{n % 5}") for n in range(40))


def test_the_base_is_asked_with_examples_before_the_question() -> None:
    asked = question(ROWS[:2], ROWS[3])
    assert ["system", "user", "assistant", "user", "assistant", "user"] == [m["role"] for m in asked.messages]
    assert ("say label3", "label3") == (asked.messages[-1]["content"], asked.expected)


def test_the_examples_have_distinct_answers() -> None:
    chosen = [each.messages[-1].content for each in examples(ROWS)]
    assert (SHOTS, SHOTS) == (len(chosen), len(set(chosen)))


def test_as_many_as_were_asked_for_are_scored(endpoint: Endpoint) -> None:
    found = few_shot(ROWS, (), url=endpoint.url, key="k", model="base", count=7)
    assert found is not None
    assert (7, 7, SHOTS) == (found.right, found.asked, found.shots)


def test_held_out_rows_are_what_is_asked(endpoint: Endpoint) -> None:
    few_shot(ROWS, [row(1, "say held", "held")], url=endpoint.url, key="k", model="base", count=1)
    assert ["say held"] == [body["messages"][-1]["content"] for body in endpoint.seen]


def test_a_slow_engine_is_not_waited_for_in_passing(endpoint: Endpoint) -> None:
    endpoint.free.clear()
    began = time.monotonic()
    assert None is few_shot(ROWS, (), url=endpoint.url, key="k", model="base", budget_s=0.2)
    assert time.monotonic() - began < 2.0


def test_an_endpoint_that_fails_is_told_only_to_who_asked_for_it(endpoint: Endpoint) -> None:
    endpoint.status = 500
    assert None is few_shot(ROWS, (), url=endpoint.url, key="k", model="base")
    with pytest.raises(TrainingError, match="answered 500"):
        few_shot(ROWS, (), url=endpoint.url, key="k", model="base", count=2)


def test_a_row_that_is_asked_is_not_among_the_examples(endpoint: Endpoint) -> None:
    distinct = tuple(row(n, f"say word{n}", f"word{n}") for n in range(4, 0, -1))  # the shortest come last
    few_shot(distinct, (), url=endpoint.url, key="k", model="base", count=2)
    shown = {message["content"] for body in endpoint.seen for message in body["messages"][:-1]}
    assert set() == shown & {body["messages"][-1]["content"] for body in endpoint.seen}
