"""The second tier between the journal and the lake: nothing of a strict route passes it unexamined."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from gateway.db import Database
from gateway.settings import PresidioSettings
from gateway.traffic.cleaner import cleaned
from gateway.traffic.eraser import Eraser
from gateway.traffic.forgetting import Forgetting
from gateway.traffic.journal import Journal
from gateway.traffic.lake import Lake
from gateway.traffic.query import Wanted
from gateway.traffic.reader import Reader
from gateway.traffic.record import METADATA, Exchanged, encode
from gateway.traffic.rollup import Rollups
from gateway.traffic.row import row_of
from gateway.traffic.second import Examining, SecondTier, Unexamined, examining, missing, problem
from gateway.traffic.ship import Shipping, told
from gateway.traffic.shipper import FAULTS, Shipped, Shipper
from tests.traffic.pipelines import pipeline
from tests.traffic.records import record
from tests.traffic.test_shipper import Killed, ids, journal, left, once, rounded, sums

SALT = b"s" * 32
WHO = "Alice Johnson"
SSN = "219-09-9999"


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> SecondTier:
    return SecondTier(Examining(models={"en": pipeline(tmp_path_factory.mktemp("pipeline"))}))


def strict(number: int = 0, said: str = f"I am {WHO}, SSN {SSN}", **more: Any) -> Exchanged:
    """As a gateway journals it, after the first tier."""
    call = {"name": "look_up", "arguments": json.dumps({"who": WHO, "ssn": int(SSN.replace("-", ""))})}
    calls = [{"id": "call_1", "type": "function", "function": call}]
    message = {"role": "assistant", "content": f"Hello {WHO}", "tool_calls": calls}
    asked = {
        "model": "support",
        "messages": [{"role": "user", "content": said}],
        "tools": [{"type": "function", "function": {"name": "look_up", "description": f"Ask {WHO}"}}],
        "metadata": {"agent": WHO},
        "stop": [WHO],
        "user": "u-1",
    }
    answered = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": {}}
    given = record(
        number,
        redacted=True,
        request=json.dumps(asked).encode(),
        answer=json.dumps(answered).encode(),
        **more,
    )
    return cleaned(given, SALT)


def in_lake(lake: Lake) -> list[dict[str, Any]]:
    table = lake.query("SELECT id, messages, tools, parameters, metadata, response FROM lake").read_all()
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_every_column_with_words_is_examined(second: SecondTier) -> None:
    row = second(row_of(strict()))
    assert WHO not in json.dumps(row) and SSN not in json.dumps(row) and "219099999" not in json.dumps(row)
    assert [{"role": "user", "content": "I am [PERSON], SSN [US_SSN]"}] == json.loads(row["messages"] or "")
    (message,) = json.loads(row["response"] or "")
    (call,) = message["tool_calls"]
    assert ("assistant", "Hello [PERSON]") == (message["role"], message["content"])
    assert ("call_1", "look_up") == (call["id"], call["function"]["name"])
    assert {"who": "[PERSON]", "ssn": "[US_SSN]"} == json.loads(call["function"]["arguments"])
    (tool,) = json.loads(row["tools"] or "")
    assert {"name": "look_up", "description": "Ask [PERSON]"} == tool["function"]
    assert {"agent": "[PERSON]"} == json.loads(row["metadata"] or "")
    parameters = json.loads(row["parameters"] or "")
    assert (["[PERSON]"], row["unit"]) == (parameters["stop"], parameters["user"])


def test_what_holds_nothing_is_the_row_that_it_was(second: SecondTier) -> None:
    for given in (strict(said="Hello", level=METADATA), cleaned(record(3, redacted=True), SALT)):
        assert row_of(given) == second(row_of(given))


async def test_rows_of_strict_routes_are_examined_on_their_way_and_others_are_not(
    tmp_path: Path, lake: Lake, rollups: Rollups, second: SecondTier
) -> None:
    free = record(1, request=json.dumps({"messages": [{"role": "user", "content": WHO}]}).encode())
    journal(tmp_path, [strict(), free])
    assert Shipped(1, 2, 1) == Shipper(tmp_path / "journal", lake, rollups, examine=second).ship()
    by_id = {row["id"]: row for row in in_lake(lake)}
    assert WHO in by_id.pop(free.id)["messages"]
    ((examined),) = by_id.values()
    assert WHO not in json.dumps(examined) and "[PERSON]" in examined["messages"]


async def test_a_segment_with_a_row_that_cannot_be_examined_waits_and_other_writers_do_not(
    tmp_path: Path, lake: Lake, rollups: Rollups
) -> None:
    def examine(row: Any) -> Any:
        if "poison" in row["messages"]:
            raise Unexamined("because")
        return row

    poisoned = [strict(0), strict(1, "poison"), strict(2)]
    fine = [strict(3)]
    two = [Journal(tmp_path / "journal") for _ in range(2)]
    for writer in two:
        writer.start()
    for writer, records in zip(two, (poisoned, fine), strict=True):
        for each in records:
            writer.append(encode(each))
        writer.stop()
    shipper = Shipper(tmp_path / "journal", lake, rollups, examine=examine)
    for shipped in (1, 0):
        done = shipper.ship()
        assert (["because"], shipped) == (done.waiting, done.rows)
        assert once(fine) == ids(lake) and 1 == rollups.total().requests
        assert 1 == len(left(tmp_path))
    assert 3 == Shipper(tmp_path / "journal", lake, rollups).ship().rows
    assert once(poisoned + fine) == ids(lake) and 4 == rollups.total().requests


async def test_an_exchange_that_cannot_be_examined_can_be_let_go(
    tmp_path: Path, lake: Lake, postgres: Engine, db: Database, second: SecondTier
) -> None:
    bad = strict(said="poison")
    rest = [strict(1), strict(2)]
    journal(tmp_path, [bad, *rest])
    eraser = Eraser(tmp_path / "journal", lake, postgres, readers_s=0)

    def examine(row: Any) -> Any:
        if row["id"] == bad.id:
            raise Unexamined("because")
        return second(row)

    shipper = Shipper(tmp_path / "journal", lake, Rollups(postgres), keeps=eraser.keeps, examine=examine)
    eraser.look()
    assert ["because"] == shipper.ship().waiting
    forgetting = Forgetting(db.engine, SALT)
    await forgetting.add("request", bad.id, "default")
    eraser.look()
    assert [] == shipper.ship().waiting
    assert once(rest) == ids(lake) and left(tmp_path) == []


@pytest.mark.parametrize("point", FAULTS)
async def test_killed_at_any_point_every_row_arrives_once_and_examined(
    tmp_path: Path, lake: Lake, rollups: Rollups, second: SecondTier, point: str
) -> None:
    records = [strict(number) for number in range(30)]
    journal(tmp_path, records, segment_bytes=5_000)
    passed = 0

    def fault(at: str) -> None:
        nonlocal passed
        passed += at == point
        if at == point and passed in (2, 3):
            raise Killed(at)

    kills = 0
    for _ in range(4):
        try:
            Shipper(
                tmp_path / "journal", lake, rollups, examine=second, commit_bytes=6_000, fault=fault
            ).ship()
        except Killed:
            kills += 1
    assert 2 == kills
    assert once(records) == ids(lake)
    assert rounded(rollups.total()) == sums(lake)
    assert WHO not in json.dumps(in_lake(lake)) and left(tmp_path) == []


def test_an_error_names_the_exchange_and_quotes_nothing(second: SecondTier) -> None:
    def rewrite(text: str, name: str) -> str:
        raise ValueError(f"did not find {text}")

    row = row_of(strict())
    with pytest.raises(Unexamined) as raised:
        SecondTier(Examining(), lambda wanted: rewrite)(row)
    assert f"exchange {row['id']} could not be examined (ValueError in test_second.py:" in str(raised.value)
    assert f"hotswap traffic forget --request {row['id']}" in str(raised.value)
    assert (
        WHO not in str(raised.value) and raised.value.__suppress_context__ and raised.value.__cause__ is None
    )


def test_what_could_not_be_loaded_is_tried_again(tmp_path: Path) -> None:
    """Somebody reads the error, and installs what is missing."""
    folder = tmp_path / "pipeline"
    second = SecondTier(Examining(models={"en": str(folder)}))
    with pytest.raises(Unexamined, match=r"models\.en = .*pip install its wheel"):
        second(row_of(strict()))
    pipeline(folder)
    assert WHO not in json.dumps(second(row_of(strict())))


def test_a_pipeline_that_does_not_load_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.cfg").write_text("[nlp]\nlang = 7\n")
    assert "does not load" in problem(Examining(models={"en": str(tmp_path)}))
    assert "" == problem(Examining())


def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "" == missing(Examining())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = missing(Examining())
    assert "presidio_analyzer is not installed: pip install 'hotswap[presidio]'" in told
    assert told == problem(Examining())


def test_settings_say_what_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examining(PresidioSettings()) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names").mkdir()
    given = PresidioSettings(enabled=True, models={"en": "names"}, entities=("PERSON",), score=0.6)
    wanted = Examining(("en",), {"en": str(tmp_path / "names")}, ("PERSON",), 0.6)
    assert wanted == examining(given)
    shipping = Shipping("journal", "lake", "log", options={"key": "1"}, examining=wanted)
    assert shipping == told(shipping.environment("postgresql://"))


def test_before_they_are_examined_rows_of_strict_routes_are_shown_without_words(tmp_path: Path) -> None:
    given, free = strict(), record(1)
    journal(tmp_path, [given, free])
    lake = Lake(str(tmp_path / "lake"))
    names = ("id", "prompt", "messages", "tools", "parameters", "metadata", "response")
    reader = Reader(lake, tmp_path / "journal", examined=True)
    rows = {row["id"]: row for row in reader.rows(Wanted(limit=None), names)}
    assert dict.fromkeys(names[2:]) == {name: rows[given.id][name] for name in names[2:]}
    assert "question 1" in rows[free.id]["messages"]
    assert [free.id] == [json.loads(line)["metadata"]["id"] for line in reader.export(Wanted(limit=None))]


def test_it_loads_in_a_process_of_its_own_without_torch_or_a_connection(tmp_path: Path) -> None:
    """torch would take 350 MB; presidio itself would fetch a spaCy pipeline, and a list of domains."""
    program = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('it asks the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from gateway.traffic import ship\n"
        "from gateway.traffic.second import Examining\n"
        f"wanted = Examining(models={{'en': {pipeline(tmp_path)!r}}})\n"
        "examine = ship._second(ship.Shipping('', '', '', examining=wanted))['examine']\n"
        f"print(examine.load()('{WHO}, {SSN}, alice@example.com', ''), sys.modules['torch'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "[PERSON], [US_SSN], alice@example.com None" == done.stdout.strip(), done.stderr
