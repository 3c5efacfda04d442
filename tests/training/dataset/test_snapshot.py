"""Frozen: the same content is the same dataset, whole or not at all, and changed only by forgetting."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.dataset.plan import DatasetError
from training.dataset.snapshot import ANSWERS, ORIGINS, TRAIN, VALIDATION, Shelf, Snapshot, row_digest
from training.rows import chat, read_rows


def contents(ids: list[str], more: int = 0) -> dict[str, list[dict[str, Any]]]:
    """A row for each exchange in training, and `more` of nobody in validation."""
    train = [chat(f"q {id}", f"a {id}") for id in ids]
    validation = [chat(f"v {at}", f"a {at}") for at in range(more)]
    origins = [
        {"file": TRAIN, "row": at, "sha256": row_digest(row), "ids": [id]}
        for at, (id, row) in enumerate(zip(ids, train, strict=True), start=1)
    ]
    origins += [
        {"file": VALIDATION, "row": at, "sha256": row_digest(row)}
        for at, row in enumerate(validation, start=1)
    ]
    return {TRAIN: train, VALIDATION: validation, ORIGINS: origins}


def frozen(shelf: Shelf, *ids: str, more: int = 0) -> Snapshot:
    return shelf.freeze("support", contents(list(ids), more), {"notes": []})[0]


def test_its_folder_is_named_by_its_content(shelf: Shelf) -> None:
    snapshot = frozen(shelf, "a", "b")
    assert shelf.folder / "support" / snapshot.digest[:12] == snapshot.folder
    assert 64 == len(snapshot.digest)


def test_the_same_content_is_the_same_snapshot(shelf: Shelf) -> None:
    first, again = (shelf.freeze("support", contents(["a"]), {"notes": []}) for _ in range(2))
    assert (first[0].digest, True, False) == (again[0].digest, first[1], again[1])


def test_what_was_forgotten_does_not_come_back_with_the_same_content(shelf: Shelf) -> None:
    shelf.scrub(frozen(shelf, "a", "b"), ["a"])
    assert (1, {TRAIN: 1, VALIDATION: 0}) == ((again := frozen(shelf, "a", "b")).scrubbed, again.rows)


def test_one_other_word_is_another_snapshot(shelf: Shelf) -> None:
    assert frozen(shelf, "a").digest != frozen(shelf, "b").digest


def test_where_a_row_came_from_is_part_of_what_it_is(shelf: Shelf) -> None:
    other = contents(["a"])
    other[ORIGINS][0]["licence"] = "cc-by-4.0"
    assert frozen(shelf, "a").digest != shelf.freeze("support", other, {})[0].digest


def test_the_trainer_reads_its_rows(shelf: Shelf) -> None:
    assert 2 == len(read_rows(frozen(shelf, "a", "b").file(TRAIN)))


def test_its_files_are_read_only(shelf: Shelf) -> None:
    modes = {stat.S_IMODE(file.stat().st_mode) for file in frozen(shelf, "a").folder.iterdir()}
    assert {0o444} == modes


def test_a_name_means_the_last_that_was_built(shelf: Shelf) -> None:
    first = frozen(shelf, "a")
    second = frozen(shelf, "b")
    assert second.digest == shelf.find("support").digest
    frozen(shelf, "a")  # built again
    assert first.digest == shelf.find("support").digest


def test_it_is_found_by_name_and_digits(shelf: Shelf) -> None:
    snapshot = frozen(shelf, "a")
    frozen(shelf, "b")
    assert snapshot.digest == shelf.find(snapshot.reference).digest


@pytest.mark.parametrize("reference", ["other", "support@0123456789ab", "support@v1", "../x", "Support"])
def test_what_is_not_there_is_named(shelf: Shelf, reference: str) -> None:
    frozen(shelf, "a")
    with pytest.raises(DatasetError, match=r"dataset"):
        shelf.find(reference)


@pytest.mark.parametrize("name", ["", "../up", "A", "a/b", "a" * 64])
def test_a_name_that_could_lead_elsewhere_is_refused(shelf: Shelf, name: str) -> None:
    with pytest.raises(DatasetError, match="not usable"):
        shelf.freeze(name, contents(["a"]), {})


def test_a_changed_file_is_noticed(shelf: Shelf) -> None:
    snapshot = frozen(shelf, "a")
    snapshot.check()
    snapshot.file(TRAIN).chmod(0o644)
    snapshot.file(TRAIN).write_text(json.dumps(chat("q", "poison")) + "\n")
    with pytest.raises(DatasetError, match=r"train\.jsonl was changed"):
        snapshot.check()


def test_a_manifest_that_was_made_to_fit_a_changed_file_is_noticed(shelf: Shelf) -> None:
    snapshot = frozen(shelf, "a")
    other = frozen(shelf, "b")
    (snapshot.folder / "dataset.json").unlink()
    manifest = {**other.manifest, "digest": snapshot.digest}
    (snapshot.folder / "dataset.json").write_text(json.dumps(manifest))
    for name in (TRAIN, ORIGINS):
        snapshot.file(name).unlink()
        snapshot.file(name).write_bytes(other.file(name).read_bytes())
    with pytest.raises(DatasetError, match="do not make its digest"):
        shelf.find(snapshot.reference).check()


def test_a_build_that_was_killed_leaves_nothing_to_be_found(shelf: Shelf) -> None:
    (shelf.folder / "support" / ".part-1").mkdir(parents=True)
    (shelf.folder / "support" / ".part-1" / "dataset.json").write_text("{}")
    assert [] == shelf.all()


def test_removed_it_is_gone_and_the_name_means_the_one_before(shelf: Shelf) -> None:
    first, second = frozen(shelf, "a"), frozen(shelf, "b")
    shelf.remove(second)
    assert (first.digest, [first.reference]) == (
        shelf.find("support").digest,
        [each.reference for each in shelf.all()],
    )
    shelf.remove(first)
    assert not (shelf.folder / "support").exists()


def test_forgotten_rows_are_in_no_file_any_more(shelf: Shelf) -> None:
    snapshot = frozen(shelf, "alice", "bob", "carol", more=2)
    assert 2 == shelf.scrub(snapshot, ["alice", "carol", "nobody"])
    found = "".join(file.read_text() for file in snapshot.folder.iterdir())
    assert (False, False, True) == tuple(name in found for name in ("alice", "carol", "bob"))


def test_a_scrubbed_snapshot_keeps_its_name_says_so_and_is_whole(shelf: Shelf) -> None:
    before = frozen(shelf, "a", "b", more=1)
    shelf.scrub(before, ["a"])
    after = shelf.find(before.reference)
    after.check()
    assert (before.digest, 1, {TRAIN: 1, VALIDATION: 1}) == (after.digest, after.scrubbed, after.rows)
    assert [(TRAIN, 1), (VALIDATION, 1)] == [(each["file"], each["row"]) for each in after.origins()]


def test_what_was_made_from_a_forgotten_exchange_goes_with_it(shelf: Shelf) -> None:
    files = contents(["a", "made"])
    files[ORIGINS][1] |= {"ids": [], "seeds": ["a", "b"]}
    snapshot = shelf.freeze("support", files, {})[0]
    assert 1 == shelf.scrub(snapshot, ["b"])
    assert ["a"] == [origin["ids"][0] for origin in shelf.find("support").origins()]


def test_answers_of_writers_that_may_be_made_of_what_is_forgotten_go_too(shelf: Shelf) -> None:
    snapshot = frozen(shelf, "a")
    (shelf.folder / ANSWERS).mkdir()
    (shelf.folder / ANSWERS / "1.json").write_text('"a words"')
    shelf.scrub(snapshot, ["nobody"])
    assert (shelf.folder / ANSWERS).exists()
    shelf.scrub(snapshot, ["a"])
    assert not (shelf.folder / ANSWERS).exists()


def test_scrubbing_that_was_killed_is_finished_by_the_next(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = frozen(shelf, "a", "b", "c", more=1)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.dataset.snapshot._write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            shelf.scrub(snapshot, ["a"])
    with monkeypatch.context() as patched:  # and once more, after the rows and before their origins
        original = Path.replace
        patched.setattr(
            Path, "replace", lambda self, to: killed() if to.name == ORIGINS else original(self, to)
        )
        with pytest.raises(KeyboardInterrupt):
            shelf.scrub(shelf.find("support"), ["b"])
    shelf.scrub(shelf.find("support"), ["a", "b"])
    after = shelf.find("support")
    after.check()
    assert [["c"]] == [each["ids"] for each in after.origins() if "ids" in each]
    assert 1 == len(read_rows(after.file(TRAIN)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.sets(st.sampled_from("abcdefgh"), min_size=1), st.sets(st.sampled_from("abcdefghxyz")))
def test_scrubbing_leaves_exactly_the_others(tmp_path: Path, held: set[str], gone: set[str]) -> None:
    shelf = Shelf(Path(mkdtemp(dir=tmp_path)))
    snapshot = frozen(shelf, *sorted(held))
    assert len(held & gone) == snapshot.holds(gone) == shelf.scrub(snapshot, gone)
    after = shelf.find("support")
    assert sorted(held - gone) == [id for origin in after.origins() for id in origin["ids"]]
    assert len(held - gone) == after.rows[TRAIN]
