"""Rows out of files: what is read, and what is told of a bad one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from training.dataset.candidate import Candidate, Ledger
from training.dataset.plan import DatasetError, Source
from training.dataset.sources.files import read_file
from training.dataset.sources.hub import licence_of, read_hub
from training.dataset.sources.records import Records
from training.rows import chat


def records(**source: Any) -> Records:
    return Records(Source(location="x", **source), 0, "own")


def read(file: Path, **source: Any) -> list[Candidate]:
    return list(read_file(file, records(**source), Ledger()))


def said(candidates: list[Candidate]) -> list[tuple[str, str]]:
    return [(each.prompt, each.answer) for each in candidates]


def lines(file: Path, *values: Any) -> Path:
    file.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return file


def test_json_lines_of_both_forms_are_read(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", chat("q", "a"), {"prompt": "p", "completion": "c"})
    assert [("q", "a"), ("p", "c")] == said(read(file))


def test_a_row_knows_its_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"\n{json.dumps(chat('q', 'a'))}\n")
    assert ["a.jsonl:2"] == [each.place for each in read(file)]


def test_csv_is_read_by_the_usual_names(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('question,answer,system\n"Where, then?",Here,Be brief\n', encoding="utf-8-sig")
    (found,) = read(file)
    assert ("Where, then?", "Here", "Be brief") == (found.prompt, found.answer, found.system)


def test_columns_of_other_names_are_named_by_the_plan(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["kunde", "frage", "antwort", "am"], ["7", "Wo?", "Da.", "2026-11-24"]])
    columns = {"prompt": "frage", "completion": "antwort", "unit": "kunde", "at": "am"}
    (found,) = read(file, columns=columns)
    assert (("Wo?", "Da."), 1795478400.0) == ((found.prompt, found.answer), found.at)
    assert found.unit.startswith("f:")


def test_a_unit_of_a_file_is_never_kept_as_a_name(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"prompt": "p", "completion": "c", "user": "alice@example.com"})
    (found,) = read(file)
    assert "alice" not in repr(found) and found.unit


def test_parquet_is_read_with_its_messages(tmp_path: Path) -> None:
    conversation = chat("q", "a", system="s")["messages"]
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": conversation}]), tmp_path / "a.parquet")
    (found,) = read(tmp_path / "a.parquet")
    assert ("q", "a", "s") == (found.prompt, found.answer, found.system)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "p"}', r"line 2: has no 'completion' among \['prompt'\]"),
        ("{", "line 2: is not JSON"),
        ('["a"]', "line 2: is no object"),
        ('{"messages": [{"role": "user", "content": "q"}]}', "line 2: has no assistant message"),
        ('{"prompt": "p", "completion": "c", "at": "soon"}', "line 2: has the time 'soon'"),
        ('{"prompt": "p", "completion": " "}', "line 2: 'completion' is blank"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"{json.dumps(chat('q', 'a'))}\n{line}\n")
    with pytest.raises(DatasetError, match=rf"(?s)1 bad rows.*{reason}"):
        read(file)


def test_bad_lines_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"{{\n{json.dumps(chat('q', 'a'))}\n")
    ledger = Ledger()
    found = list(read_file(file, records(skip_bad=True), ledger))
    assert (1, {"bad_row": ["a.jsonl:1"]}) == (len(found), ledger.places)


def test_a_csv_line_with_too_many_fields_is_bad(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\na,b,c\n")
    with pytest.raises(DatasetError, match="line 2: has more fields than the heading"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.parquet", "a.xlsx", "none.jsonl"])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    if not name.startswith("none"):
        (tmp_path / name).write_text("no table")
    with pytest.raises(DatasetError, match=name):
        read(tmp_path / name)


def hub(location: str) -> list[Candidate]:
    return list(read_hub(location, records(), Ledger()))


def test_a_saved_data_set_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([{"question": "q", "answer": "a"}])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "two")
    assert [("q", "a")] == said(hub(f"hf://{tmp_path / 'one'}"))
    assert [("q", "a")] == said(hub(f"hf://{tmp_path / 'two'}?split=test"))
    with pytest.raises(DatasetError, match="has no split 'dev', but train, test"):
        hub(f"hf://{tmp_path / 'two'}?split=dev")


def test_a_folder_of_data_files_is_read_with_its_cards_licence(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    lines(folder / "train.jsonl", {"instruction": "q", "output": "a"})
    (folder / "README.md").write_text("---\npretty_name: x\nlicense: cc-by-4.0\n---\n# x\n")
    location = f"hf://{folder}"
    assert ([("q", "a")], "cc-by-4.0") == (said(hub(location)), licence_of(location))


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="neither a folder nor a hub id"):
        hub(f"hf://{tmp_path / 'none'}")
