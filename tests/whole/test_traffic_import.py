"""Importing as users do it: what they have from elsewhere becomes traffic, once, and on the route's terms."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.traffic.lake import Lake
from tests.fakes import Fake, before
from tests.house import House, wait_for

SETTINGS = {
    "HOTSWAP_TRAFFIC__SEGMENT_AGE_S": "0.2",
    "HOTSWAP_TRAFFIC__SHIP_EVERY_S": "0.2",
    "HOTSWAP_TRAFFIC__CONSENT": "terms of 2026",
}
PLANTED = "carol.planted@example.org"


@pytest.fixture(scope="module")
def house(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("import")
    with Fake() as fake, House(folder, tiny_base, before([fake], **SETTINGS)) as running:
        wait_for("it serves", lambda: ["serving"] == [each["status"] for each in running.fleet()])
        yield running


def talk(question: str, answer: str = "On its way.", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **more}


def completion(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()) - 86_400,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"message": {"role": "assistant", "content": f"Stored {number}."}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3},
        **more,
    }


def written(path: Path, *rows: Any) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def took(house: House, *words: str, code: int = 0) -> dict[str, int]:
    done = house.cli("traffic", "import", *words, "--json")
    assert done.returncode == code, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def told(house: House, *words: str) -> Any:
    done = house.cli("traffic", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shipped(house: House, route: str) -> int:
    found = Lake(str(house.state / "lake")).query(f"SELECT id FROM lake WHERE route = '{route}'").read_all()
    return int(found.num_rows)


def test_every_format_is_imported_once_and_read_as_any_traffic(house: House, tmp_path: Path) -> None:
    """No adapter of the name is needed: this is what the first is trained on."""
    question = [{"role": "user", "content": "Where is my card?"}]
    file = written(
        tmp_path / "have.jsonl",
        completion(1, messages=question, metadata={"customer": "erin"}),
        talk("Fine-tuned?", metadata={"customer": "erin"}),
        {"request": {"messages": question}, "response": completion(2), "metadata": {"customer": "frank"}},
    )
    output = written(
        tmp_path / "out.jsonl",
        {"custom_id": "a", "response": {"status_code": 200, "body": completion(3)}, "error": None},
    )
    asked = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": question},
    }
    batch = ("--requests", written(tmp_path / "in.jsonl", asked))
    to = ("--route", "first", "--consent", "contract 7")
    by_unit = (file, *to, "--unit-field", "metadata.customer")

    dry = house.cli("traffic", "import", *by_unit, "--dry-run")
    assert dry.stdout == "3 imported, 0 already there, 0 refused (dry run)\n"
    assert took(house, *by_unit) == {"imported": 3, "already_there": 0, "refused": 0}
    assert took(house, output, *to, *batch) == {"imported": 1, "already_there": 0, "refused": 0}
    for _ in range(2):  # from the journal, and from the lake
        assert took(house, *by_unit)["already_there"] == 3
        rows = told(house, "ls", "--route", "first")["data"]
        assert {row["engine"] for row in rows} == {"import/have.jsonl", "import/out.jsonl"}
        assert {row["consent"] for row in rows} == {"contract 7"}
        (stats,) = [row for row in told(house, "stats", "--route", "first") if row["version"]]
        assert (stats["imported"], stats["requests"], stats["completion"]) == (True, 3, 9)
        exported = house.cli("traffic", "export", "--route", "first", "--unit", "frank").stdout
        assert json.loads(exported)["messages"][1]["content"] == "Stored 2."
        wait_for("it is shipped", lambda: shipped(house, "first") == 4, 30)
    assert "imported" in house.cli("traffic", "ls", "--route", "first").stdout
    assert "(imported)" in house.cli("traffic", "stats", "--route", "first").stdout


def test_our_own_export_comes_back_as_already_there_and_elsewhere_as_new(
    house: House, tmp_path: Path
) -> None:
    for number in range(3):
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"{number}?"}], "max_tokens": 4}
        answer = httpx.post(f"{house.url}/v1/chat/completions", json=body, headers=house.headers, timeout=30)
        assert answer.status_code == 200, answer.text
    wait_for("they are there", lambda: len(told(house, "ls", "--route", "tiny")["data"]) == 3, 10)
    file = tmp_path / "export.jsonl"
    assert house.cli("traffic", "export", "--route", "tiny", "--out", str(file)).returncode == 0
    assert took(house, str(file), "--route", "tiny")["already_there"] == 3
    assert took(house, str(file), "--route", "moved")["imported"] == 3
    (row,) = told(house, "stats", "--route", "moved")
    assert row["imported"] and row["version"] == "tiny"


def test_an_imported_exchange_takes_feedback_and_is_forgotten(house: House, tmp_path: Path) -> None:
    rows = [talk(f"question {number}", user=unit) for number, unit in enumerate(("gina", "henry", "gina"))]
    file = written(tmp_path / "units.jsonl", *rows)
    assert took(house, file, "--route", "units")["imported"] == 3
    henrys = told(house, "ls", "--unit", "henry")["data"][0]["id"]
    said = {"id": henrys, "thumb": "up", "correction": "It came."}
    answer = httpx.post(f"{house.url}/v1/feedback", json=said, headers=house.headers, timeout=30)
    assert answer.status_code == 200, answer.text
    assert told(house, "show", henrys)["feedback"]["correction"] == "It came."
    wait_for("they are shipped", lambda: shipped(house, "units") == 3, 30)
    assert house.cli("traffic", "forget", "--unit", "gina").returncode == 0
    assert house.cli("traffic", "forget", "--request", henrys).returncode == 0
    assert told(house, "ls", "--route", "units")["data"] == []
    wait_for("they are erased", lambda: shipped(house, "units") == 0, 60)
    assert took(house, file, "--route", "units")["already_there"] == 3  # what is forgotten stays so


def test_a_strict_route_gets_no_raw_value_and_leaves_none_on_the_disk(house: House, tmp_path: Path) -> None:
    done = house.cli("traffic", "policy", "set", "--route", "secret", "--redact", "strict")
    assert done.returncode == 0, done.stderr
    rows = [talk(f"I am {PLANTED}", f"Hello {PLANTED}", user=PLANTED), {"messages": PLANTED}]
    file = written(tmp_path / "secret.jsonl", *rows)
    assert took(house, file, "--route", "secret", code=1) == {
        "imported": 1,
        "already_there": 0,
        "refused": 1,
    }
    wait_for("it is shipped", lambda: shipped(house, "secret") == 1, 30)
    (row,) = told(house, "ls", "--route", "secret")["data"]
    assert told(house, "show", row["id"])["messages"] == [{"role": "user", "content": "I am [EMAIL]"}]
    assert row["unit"].startswith("h:") and row["redacted"]
    for path in house.state.rglob("*"):
        if path.is_file() and PLANTED.encode() in path.read_bytes():
            raise AssertionError(f"{path} holds the planted value")


def test_bad_lines_are_told_by_file_and_line_and_the_rest_is_imported(house: House, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    good = json.dumps(talk("fine?"))
    file.write_text(f'{good}\n{{"text": 1}}\n\n{json.dumps(talk("second?"))}\nnot json\n')
    done = house.cli("traffic", "import", str(file), "--route", "bad")
    assert (done.returncode, done.stdout) == (1, "2 imported, 0 already there, 2 refused\n")
    assert f"{file}:2 has text; a line has `messages`" in done.stderr
    assert f"{file}:5 is no JSON" in done.stderr
    done = house.cli("traffic", "import", str(file), "--route", "bad", "--skip-bad")
    assert (done.returncode, done.stdout) == (0, "0 imported, 2 already there, 2 refused\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nothing.jsonl", "--route", "bad"), "is no file"),
        (("good.jsonl", "--route", "off"), "capture is off"),
        (("good.jsonl", "--route", "No Such"), "is not usable"),
        (("good.jsonl", "--route", "bad", "--consent", "x" * 300), "consent is at most 200"),
        (("good.jsonl",), "Missing option '--route'"),
    ],
)
def test_mistakes_are_told(house: House, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    assert house.cli("traffic", "policy", "set", "--route", "off", "--capture", "off").returncode == 0
    written(tmp_path / "good.jsonl", talk("?"))
    done = house.cli("traffic", "import", str(tmp_path / words[0]), *words[1:])
    assert done.returncode != 0 and says in done.stderr and done.stdout == ""


def test_a_gateway_killed_in_the_middle_is_completed_by_the_same_command(
    tiny_base: Path, tmp_path: Path
) -> None:
    lines = [f"{json.dumps(talk(f'question {number}'))}\n".encode() for number in range(14_000)]
    command = [sys.executable, "-m", "gateway.cli", "traffic", "import", "-", "--route", "long", "--json"]
    with Fake() as fake:
        house = House(tmp_path, tiny_base, before([fake], **SETTINGS))
        house.start()
        first = subprocess.Popen(
            command,
            env=house.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert first.stdin is not None
        first.stdin.write(b"".join(lines[:8_000]))
        first.stdin.flush()
        wait_for("some are imported", lambda: told(house, "stats", "--route", "long"), 60)
        house.kill()
        _, said = first.communicate(b"".join(lines[8_000:]), timeout=120)
        assert first.returncode == 3 and b"Run it again" in said

        house.start()
        again = subprocess.run(
            command, env=house.environment, input=b"".join(lines), capture_output=True, timeout=120
        )
        assert again.returncode == 0, again.stderr
        counts = json.loads(again.stdout)
        assert counts["already_there"] in (4_000, 8_000) and counts["refused"] == 0
        assert counts["imported"] + counts["already_there"] == 14_000
        wait_for("all are shipped", lambda: shipped(house, "long") >= 14_000, 60)
        found = Lake(str(house.state / "lake")).query(
            "SELECT count(*) AS n, count(DISTINCT id) AS ids, count(DISTINCT messages) AS asked FROM lake"
        )
        house.stop()
        assert [column.to_pylist() for column in found.read_all().columns] == [[14_000]] * 3
