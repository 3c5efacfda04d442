"""From a plan to a snapshot, on real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.dataset.candidates import question
from tests.training.dataset.conftest import Build
from training.dataset.build import Means
from training.dataset.plan import DatasetError, plan_of, read_plan
from training.dataset.report import lines, page
from training.dataset.snapshot import TRAIN, VALIDATION, Shelf, row_digest
from training.rows import chat, read_rows


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def own(file: Path) -> dict[str, str]:
    return {"from": str(file), "licence": "own"}


def test_a_build_splits_and_freezes(make: Build) -> None:
    built = make()
    assert (36, 4) == (built.snapshot.rows[TRAIN], built.snapshot.rows[VALIDATION])
    built.snapshot.check()


def test_built_twice_it_is_the_same(make: Build, shelf: Shelf, tmp_path: Path) -> None:
    first = make()
    second = make(means=Means(Shelf(tmp_path / "elsewhere")))
    assert (first.snapshot.digest, True) == (second.snapshot.digest, second.created)
    assert not make().created


def test_every_row_has_an_origin_with_its_place_and_licence(make: Build) -> None:
    snapshot = make().snapshot
    for name in (TRAIN, VALIDATION):
        rows = [json.loads(text) for text in snapshot.file(name).read_text().splitlines()]
        origins = [each for each in snapshot.origins() if each["file"] == name]
        assert [row_digest(row) for row in rows] == [each["sha256"] for each in origins]
        assert {"own"} == {each["licence"] for each in origins}


def test_the_manifest_has_the_lineage_without_places_of_this_machine(make: Build, tmp_path: Path) -> None:
    snapshot = make().snapshot
    (source,) = snapshot.manifest["lineage"]["sources"]
    assert ("rows.jsonl", 40, 40, "own") == tuple(
        source[name] for name in ("from", "rows_read", "rows_used", "licence")
    )
    written = "".join(file.read_text() for file in snapshot.folder.iterdir())
    assert str(tmp_path) not in written


def test_what_was_dropped_is_counted_with_its_place_and_no_words(make: Build, tmp_path: Path) -> None:
    file = write(
        tmp_path / "r.jsonl", *(chat(question(at % 20), "a secret of 20 letters") for at in range(40))
    )
    manifest = make(source=[own(file)]).snapshot.manifest
    assert [("duplicate", 20)] == [(each["reason"], each["rows"]) for each in manifest["dropped"]]
    assert ["r.jsonl:21", "r.jsonl:22", "r.jsonl:23"] == manifest["dropped"][0]["examples"]
    assert "secret" not in json.dumps(manifest)


def test_no_question_is_in_training_and_in_validation(make: Build, tmp_path: Path) -> None:
    rows = [chat(question(at % 12) + ("", "?", " please")[at // 12], f"answer {at}") for at in range(36)]
    snapshot = make(source=[own(write(tmp_path / "r.jsonl", *rows))], split={"validation": 0.25}).snapshot
    taught, asked = (
        {row.messages[0].content[:30] for row in read_rows(snapshot.file(name))}
        for name in (TRAIN, VALIDATION)
    )
    assert (9, set()) == (snapshot.rows[VALIDATION], taught & asked)


def test_a_file_without_a_licence_is_refused_before_it_is_read(make: Build) -> None:
    with pytest.raises(DatasetError, match=r"missing\.jsonl: no licence: nobody said"):
        make(source=[{"from": "missing.jsonl"}])


def test_a_base_whose_licence_forbids_it_is_refused(make: Build, shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"the base: cc-by-nd-4.0: forbids derivatives"):
        make(means=Means(shelf, base=(tmp_path, "cc-by-nd-4.0")))


def test_languages_are_told_apart(make: Build, tmp_path: Path) -> None:
    english = chat("Where is the card that I ordered two weeks ago?", "It was sent to you on Monday morning.")
    german = chat(
        "Wo ist die Karte, die ich vor zwei Wochen bestellt habe?", "Sie wurde am Montag verschickt."
    )
    short = chat("ok?", "yes")
    file = write(tmp_path / "r.jsonl", english, german, short)
    snapshot = make(source=[own(file)], filters={"languages": ["en"]}, split={"validation": 0}).snapshot
    assert ["Where", "ok?"] == [row.messages[0].content.split()[0] for row in read_rows(snapshot.file(TRAIN))]


def test_a_language_that_nobody_knows_is_refused(make: Build) -> None:
    with pytest.raises(DatasetError, match="has xx; write ISO 639-1"):
        make(filters={"languages": ["xx"]})


def test_rows_that_are_too_long_are_dropped(make: Build, tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", chat("long", "word " * 500), chat("short", "word"))
    assert {TRAIN: 1, VALIDATION: 0} == make(source=[own(file)], filters={"max_tokens": 100}).snapshot.rows


def test_imported_rows_are_redacted_where_that_is_wanted(make: Build, shelf: Shelf, tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", chat("I am Alice", "Hello Alice"))
    means = Means(shelf, redact=lambda text: text.replace("Alice", "[PERSON]"))
    snapshot = make(means=means, source=[own(file)], privacy={"imported": "strict"}).snapshot
    assert "Alice" not in snapshot.file(TRAIN).read_text()


def test_nothing_left_says_why(make: Build, tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", chat("q", "a"))
    with pytest.raises(DatasetError, match=r"nothing is left to learn from. Dropped: 1 too_short"):
        make(source=[own(file)], filters={"min_chars": 10})


def test_a_plan_is_read_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('[[source]]\nfrom = "a.csv"\ncolumns = { prompt = "q" }\n[split]\nvalidation = 0.2\n')
    plan = read_plan(file)
    assert ("a.csv", {"prompt": "q"}, 0.2) == (
        plan.sources[0].location,
        dict(plan.sources[0].columns),
        plan.split.validation,
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"split": {"validaton": 0.1}}, "split.validaton is not known; did you mean 'validation'?"),
        ({"split": {"validation": 1.5}}, "split.validation = 1.5"),
        ({"source": [{"form": "x"}]}, "did you mean 'from'?"),
        ({"caps": {"unit": 0}}, "caps.unit = 0"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused_by_key(table: dict[str, Any], said: str) -> None:
    with pytest.raises(DatasetError) as refused:
        plan_of(table)
    assert said in str(refused.value)


def test_the_report_tells_counts_sources_and_what_was_dropped(make: Build, tmp_path: Path) -> None:
    rows = [*(chat(question(at), f"a {at}") for at in range(8)), chat(question(0), "a 0")]
    snapshot = make(source=[own(write(tmp_path / "r.jsonl", *rows))]).snapshot
    told = "\n".join(lines(snapshot))
    for part in (snapshot.reference, "r.jsonl", "duplicate", "says the same", "r.jsonl:9", "note: "):
        assert part in told


def test_the_page_escapes_what_rows_and_files_say_and_fetches_nothing(make: Build, tmp_path: Path) -> None:
    evil = '<script>alert("x")</script><img src=https://evil.example>'
    name = "<b>r&amp;.jsonl"
    file = write(tmp_path / name, chat(evil, "a"), chat("b", evil))
    plan = {"source": [{"from": str(file), "licence": "own", "consent": evil}]}
    written = page(make(**plan, split={"validation": 0}).snapshot)
    assert "<script" not in written and "<img" not in written and "<b>" not in written
    assert "&lt;script&gt;" in written and "&lt;b&gt;r&amp;amp;.jsonl" in written
    assert "href=" not in written and "src=" not in written.replace("src=https://evil", "")
