"""The driver of the kernel's benchmark: who asks for what, how tokens are counted, how two are compared."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import pytest

from loadtests.kernel.cells import CELLS, WIDE, Cell
from loadtests.kernel.closed import PROMPT_TOKENS, Refused, Spent, drive, prompts
from loadtests.kernel.turns import Compared, by_turns
from loadtests.target import Target

NAMES = [f"a{i}" for i in range(32)]


def test_adapters_are_dealt_out_evenly():
    asked = Counter(model for models in Cell(32, 4).plan("base", NAMES) for model in models)
    assert {"a0": 8, "a1": 8, "a2": 8, "a3": 8} == asked


@pytest.mark.parametrize("cell", [cell for cell in (*CELLS, *WIDE) if cell.mixed], ids=lambda cell: cell.name)
def test_mixed_half_of_the_streams_are_the_bases_at_any_time_and_every_adapter_is_asked(cell):
    plan = cell.plan("base", NAMES)
    for turn in range(2):
        assert cell.streams // 2 == sum(models[turn] == "base" for models in plan)
    asked = {model for models in plan for model in models} - {"base"}
    assert set(NAMES[: cell.adapters]) == asked


def test_mixed_as_many_adapters_run_at_once_as_there_are_streams_for():
    plan = Cell(8, 4, mixed=True).plan("base", NAMES)
    for turn in range(2):
        assert {"a0", "a1", "a2", "a3"} == {models[turn] for models in plan} - {"base"}


def test_a_cell_with_too_few_adapters_says_so():
    with pytest.raises(ValueError, match="8 streams, 4 adapters: only 2 adapters were given"):
        Cell(8, 4).plan("base", NAMES[:2])


def test_prompts_are_the_seeds_and_differ():
    one, two = (list(islice(prompts(1, 49152), 1000)) for _ in range(2))
    assert one == two
    assert 1000 == len({tuple(each) for each in one})
    assert {PROMPT_TOKENS} == {len(each) for each in one}


def run(plan: list[list[str]], tokens: int, status: int = 200) -> tuple[Spent, list[dict[str, object]]]:
    """What `drive` says against a server that grants what is asked, and what it was asked."""
    heard: list[dict[str, object]] = []

    class Grants(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            heard.append(asked)
            body = json.dumps({"usage": {"completion_tokens": asked["max_tokens"]}}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Not to the tests' output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Grants) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever, 0.01)
        try:
            target = Target(f"http://127.0.0.1:{server.server_port}", "a-key")
            return drive(target, plan, tokens, prompts(0, 49152)), heard
        finally:
            server.shutdown()


def test_a_streams_tokens_are_shared_by_its_requests_and_counted_by_usage():
    spent, heard = run([["base", "a0"], ["a1"]], tokens=32)
    assert 64 == spent.tokens
    assert {("base", 16), ("a0", 16), ("a1", 32)} == {(each["model"], each["max_tokens"]) for each in heard}
    assert spent.tokens / spent.seconds == spent.per_s


def test_a_stream_asks_the_next_when_the_last_is_answered():
    _, heard = run([["base", "a0", "a1"]], tokens=3)
    assert ["base", "a0", "a1"] == [each["model"] for each in heard]


def test_every_request_is_greedy_and_never_ends_early():
    _, heard = run([["base"]] * 3, tokens=4)
    assert {(0, True)} == {(each["temperature"], each["ignore_eos"]) for each in heard}
    assert 3 == len({tuple(each["prompt"]) for each in heard})


def test_an_error_is_no_figure():
    with pytest.raises(Refused, match="a0 was answered 503"):
        run([["a0"]], tokens=4, status=503)


def test_the_two_take_turns():
    order: list[str] = []
    turns = by_turns(lambda: order.append("r") or 1.0, lambda: order.append("s") or 2.0, 3)
    assert list("rsrsrs") == order
    assert Compared((1.0,) * 3, (2.0,) * 3) == turns.compared(float)


def test_the_ratio_is_the_median_of_the_rounds_not_of_the_sides():
    compared = Compared((1.0, 10.0, 100.0), (3.0, 20.0, 100.0))
    assert (3.0, 2.0, 1.0) == compared.ratios
    assert 2.0 == compared.ratio
    assert "10 (1 to 100) → 20 (3 to 100), x 2.00 (1.00 to 3.00)" == compared.told()
