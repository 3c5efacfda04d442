"""Names and versions over a real Postgres and real files."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from adapters import tables
from adapters.archive import CONFIG, WEIGHTS
from adapters.errors import Conflicting, OverQuota, Refused, Unknown
from adapters.preflight import Inspection
from adapters.store import Sealed, Store
from adapters.version import Reference, State, Version
from gateway.db import Database
from tests.adapters.conftest import Shelf

FOUND = Inspection(rank=8, target_modules=("q_proj",), dtype="F16", parameters=1)


def numbers(versions: list[Version]) -> list[int]:
    return [version.number for version in versions]


async def test_the_migration_makes_what_the_tables_say(database: Database) -> None:
    def differences(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        names = set(tables.metadata.tables)
        found = compare_metadata(context, tables.metadata)
        return [d for d in found if not (d[0].startswith("remove") and _table(d) not in names)]

    async with database.engine.connect() as connection:
        assert [] == await connection.run_sync(differences)


def _table(difference: Any) -> str:
    thing = difference[1]
    return str(thing.name if isinstance(thing, sa.Table) else thing.table.name)


async def test_the_first_version_is_stable_at_once_and_the_second_waits(shelf: Shelf) -> None:
    first, second = await shelf.add("support", 1), await shelf.add("support", 2)
    assert (State.STABLE, State.REGISTERED) == (first.state, second.state)
    assert first == await shelf.stable("support")


async def test_a_version_knows_what_it_is(shelf: Shelf) -> None:
    version = await shelf.add("support", 1, manifest={"licence": "MIT", "lineage": {"job": "7"}})
    assert ("support", 1, 8, "MIT") == (
        version.adapter,
        version.number,
        version.rank,
        version.manifest["licence"],
    )
    assert version.size_bytes == shelf.store.used_bytes()
    assert shelf.store.has(version.digest)
    assert ("down_proj", "q_proj") == (await shelf.registry.inspection("support")).target_modules


async def test_the_same_content_twice_is_the_same_version(shelf: Shelf) -> None:
    first = await shelf.add_to(shelf.registry, "support", 1)
    assert (first[0], False) == await shelf.add_to(shelf.registry, "support", 1)


async def test_the_same_content_under_two_names_is_two_versions_and_one_folder(shelf: Shelf) -> None:
    a, b = await shelf.add("a", 1), await shelf.add("b", 1)
    assert a.digest == b.digest
    assert [a.digest] == shelf.store.digests()


@pytest.mark.parametrize("name", ["a/b", "a:b", "a@b", "a b", "a" * 300, "", "../x", "A"])
async def test_a_name_that_cannot_be_a_route_is_refused(shelf: Shelf, name: str) -> None:
    with pytest.raises(Refused) as caught:
        await shelf.add(name, 1)
    assert "bad_name" == caught.value.code


@pytest.mark.parametrize("manifest", [{"x": "\0"}, {"x": float("nan")}, {"x": "\ud800"}])
async def test_a_manifest_that_postgres_cannot_keep_is_refused(
    shelf: Shelf, manifest: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as caught:
        await shelf.add("support", 1, manifest=manifest)
    assert "bad_manifest" == caught.value.code


async def test_registrations_of_one_name_at_once_all_get_their_own_number(shelf: Shelf) -> None:
    versions = await asyncio.gather(*(shelf.add_to(shelf.another(), "support", seed) for seed in range(8)))
    assert list(range(1, 9)) == sorted(version.number for version, _ in versions)
    assert 1 == sum(version.state is State.STABLE for version, _ in versions)


async def test_registrations_of_one_content_at_once_are_one_version(shelf: Shelf) -> None:
    results = await asyncio.gather(*(shelf.add_to(shelf.another(), "support", 1) for _ in range(4)))
    assert [False, False, False, True] == sorted(created for _, created in results)
    assert 1 == len({version.name for version, _ in results})


async def test_two_digests_that_engines_could_not_tell_apart_are_not_both_taken(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await shelf.add("support", 1)
    twin = first.digest[:12] + "0" * 52
    monkeypatch.setattr(Store, "seal", lambda self, staged: Sealed(staged, twin, 1))
    with shelf.store.staging() as staged, pytest.raises(Conflicting, match="shares its first 12 digits"):
        await shelf.registry.add("support", staged, {}, FOUND)


@pytest.mark.parametrize("pin", ["@v2", "@short", "@long"])
async def test_a_version_is_found_by_number_and_digest(shelf: Shelf, pin: str) -> None:
    await shelf.add("support", 1)
    second = await shelf.add("support", 2)
    text = {"@v2": "support@v2", "@short": second.name, "@long": f"support@{second.digest}"}[pin]
    assert second == await shelf.registry.show(text)
    assert second == await shelf.registry.show(Reference.parse(text) or "")


async def test_a_name_without_a_pin_is_the_stable_version(shelf: Shelf) -> None:
    first = await shelf.add("support", 1)
    await shelf.add("support", 2)
    assert first == await shelf.registry.show("support")


@pytest.mark.parametrize("text", ["nobody", "support@v9", "support@000000000000", "a b", "support@", "x@y@z"])
async def test_what_is_not_there_is_unknown(shelf: Shelf, text: str) -> None:
    await shelf.add("support", 1)
    with pytest.raises(Unknown):
        await shelf.registry.show(text)


async def test_a_promotion_moves_the_route_and_retires_the_old_version(shelf: Shelf) -> None:
    await shelf.add("support", 1)
    await shelf.add("support", 2)
    assert (2, State.STABLE) == ((v := await shelf.registry.promote("support@v2")).number, v.state)
    assert [State.STABLE, State.RETIRED] == [v.state for v in await shelf.registry.versions("support")]
    assert 2 == (await shelf.stable("support")).number


async def test_a_promotion_must_name_a_version(shelf: Shelf) -> None:
    await shelf.add("support", 1)
    with pytest.raises(Conflicting, match="support@v3"):
        await shelf.registry.promote("support")


async def test_rollbacks_walk_back_through_what_was_stable(shelf: Shelf) -> None:
    for seed in (1, 2, 3):
        version = await shelf.add("support", seed)
        await shelf.registry.promote(version.name)
    assert [2, 1] == [(await shelf.registry.rollback("support")).number for _ in range(2)]
    with pytest.raises(Conflicting, match="no earlier stable version than v1"):
        await shelf.registry.rollback("support")


async def test_history_says_what_was_done_when_and_by_whom(shelf: Shelf) -> None:
    await shelf.add("support", 1, by="ann")
    await shelf.add("support", 2, by="job 7")
    await shelf.registry.promote("support@v2", by="bob")
    await shelf.registry.promote("support@v2", by="bob")  # it is already
    await shelf.registry.rollback("support", by="eve")
    await shelf.registry.remove("support@v2", by="eve")
    events = await shelf.registry.history("support")
    assert [
        ("register", 1, "ann"),
        ("promote", 1, "ann"),
        ("register", 2, "job 7"),
        ("promote", 2, "bob"),
        ("rollback", 1, "eve"),
        ("delete", 2, "eve"),
    ] == [(event.action, event.version, event.by) for event in events]
    assert sorted(event.at for event in events) == [event.at for event in events]


async def test_a_stable_version_cannot_be_removed(shelf: Shelf) -> None:
    await shelf.add("support", 1)
    with pytest.raises(Conflicting, match="support@v1 is stable"):
        await shelf.registry.remove("support@v1")


async def test_a_removed_version_is_gone_and_its_files_wait(shelf: Shelf) -> None:
    await shelf.add("support", 1)
    second = await shelf.add("support", 2)
    assert [second.name] == [version.name for version in await shelf.registry.remove(second.name)]
    assert second not in (await shelf.registry.changes()).adapters["support"]
    assert shelf.store.has(second.digest)
    with pytest.raises(Unknown):
        await shelf.registry.show(second.name)


async def test_a_removed_adapter_is_gone_with_all_its_versions(shelf: Shelf) -> None:
    await shelf.add("support", 1)
    await shelf.add("support", 2)
    assert [2, 1] == numbers(await shelf.registry.remove("support"))
    assert {} == (await shelf.registry.changes()).adapters
    assert [] == await shelf.registry.adapters()
    with pytest.raises(Unknown):
        await shelf.registry.versions("support")


async def test_an_adapter_that_was_removed_can_be_made_again_with_fresh_numbers(shelf: Shelf) -> None:
    await shelf.add("support", 1)
    await shelf.registry.remove("support")
    again = await shelf.add("support", 1)
    assert (2, State.STABLE) == (again.number, again.state)
    with pytest.raises(Conflicting):
        await shelf.registry.rollback("support")


async def test_adapters_are_listed_with_what_they_serve(shelf: Shelf) -> None:
    await shelf.add("b", 1)
    await shelf.add("a", 1)
    second = await shelf.add("a", 2)
    await shelf.registry.promote("a@v2")
    a, b = await shelf.registry.adapters()
    assert ("a", 2, 2, 1) == (a.name, a.versions, a.stable.number, a.rollback_to and a.rollback_to.number)
    assert ("b", 1, None) == (b.name, b.versions, b.rollback_to)
    assert 2 * second.size_bytes == a.size_bytes


async def test_collection_takes_old_versions_but_never_stable_or_rollback_target(shelf: Shelf) -> None:
    registry = shelf.another(keep_versions=2)
    for seed in range(1, 8):
        await shelf.add("support", seed)
    await registry.promote("support@v2")  # from v1: v1 is where a rollback goes
    assert [5, 4, 3] == numbers(await registry.collect())
    assert [7, 6, 2, 1] == numbers(await registry.versions("support"))


async def test_what_was_collected_is_named_again_until_its_files_are_forgotten(shelf: Shelf) -> None:
    await shelf.add("support", 1)
    second = await shelf.add("support", 2)
    await shelf.registry.remove("support@v2")
    assert [2] == numbers(await shelf.registry.collect())
    (doomed,) = await shelf.registry.collect()
    assert await shelf.registry.forget_files(doomed)
    assert not shelf.store.has(second.digest)
    assert [] == await shelf.registry.collect()


async def test_files_of_a_version_that_lives_are_not_forgotten(shelf: Shelf) -> None:
    version = await shelf.add("support", 1)
    assert not await shelf.registry.forget_files(version)
    assert shelf.store.has(version.digest)


async def test_files_that_another_adapter_shares_stay(shelf: Shelf) -> None:
    a, b = await shelf.add("a", 1), await shelf.add("b", 1)
    await shelf.registry.remove("a")
    assert await shelf.registry.forget_files(a)
    assert shelf.store.has(b.digest)
    await shelf.registry.remove("b")
    assert await shelf.registry.forget_files(b)
    assert not shelf.store.has(b.digest)


@pytest.mark.parametrize("forgotten", [True, False])
async def test_deleted_content_that_comes_back_lives_under_a_new_number(
    shelf: Shelf, forgotten: bool
) -> None:
    await shelf.add("support", 1)
    doomed = await shelf.add("support", 2)
    await shelf.registry.remove("support@v2")
    if forgotten:
        await shelf.registry.forget_files(doomed)
    version, created = await shelf.add_to(shelf.registry, "support", 2)
    assert (True, 3, doomed.name, State.REGISTERED) == (created, version.number, version.name, version.state)
    assert not await shelf.registry.forget_files(doomed)
    assert shelf.store.has(version.digest)


async def test_files_without_a_row_are_swept(shelf: Shelf) -> None:
    kept = await shelf.add("support", 1)
    with shelf.store.staging() as staged:
        (staged / CONFIG).write_text("{}")
        (staged / WEIGHTS).write_bytes(b"orphan")
        shelf.store.commit(staged)
    await shelf.registry.collect()
    assert [kept.digest] == shelf.store.digests()


async def test_a_database_that_never_saw_a_version_sweeps_nothing(shelf: Shelf) -> None:
    with shelf.store.staging() as staged:
        (staged / CONFIG).write_text("{}")
        (staged / WEIGHTS).write_bytes(b"somebody else's")
        digest = shelf.store.commit(staged)
    await shelf.registry.collect()
    assert [digest] == shelf.store.digests()


async def test_a_registration_whose_files_cannot_be_kept_leaves_no_row(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Store, sealed: Sealed) -> Path:
        raise OSError("the disk is on fire")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="fire"):
        patch.setattr(Store, "publish", fail)
        await shelf.add("support", 1)
    assert [] == await shelf.registry.adapters()
    assert 1 == (await shelf.add("support", 1)).number


async def test_a_registration_cancelled_at_any_moment_leaves_rows_and_files_in_step(shelf: Shelf) -> None:
    for turns in range(0, 60, 3):
        task = asyncio.ensure_future(shelf.add("support", turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await shelf.registry.collect()
    living = (await shelf.registry.changes()).adapters.values()
    assert {version.digest for versions in living for version in versions} == set(shelf.store.digests())
    assert [".lock"] == [path.name for path in shelf.store._staging.iterdir()]


@pytest.mark.parametrize("step", ["seal", "publish"])
async def test_a_cancelled_registration_waits_for_the_thread_that_has_its_files(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = getattr(Store, step)

    def slow(self: Store, argument: Any) -> Any:
        begun.set()
        assert go_on.wait(10)
        return real(self, argument)

    monkeypatch.setattr(Store, step, slow)
    task = asyncio.ensure_future(shelf.add("support", 1))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.1)
    assert set() == done
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [] == await shelf.registry.adapters()


async def test_files_are_not_forgotten_under_a_registration_of_the_same_content(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelf.add("support", 1)
    doomed = await shelf.add("support", 2)
    await shelf.registry.remove("support@v2")
    begun, go_on = threading.Event(), threading.Event()
    real = Store.publish

    def slow(self: Store, sealed: Sealed) -> Path:
        path = real(self, sealed)
        begun.set()
        assert go_on.wait(10)
        return path

    monkeypatch.setattr(Store, "publish", slow)
    adding = asyncio.ensure_future(shelf.add("support", 2))
    assert await asyncio.to_thread(begun.wait, 10)
    forgetting = asyncio.ensure_future(shelf.another().forget_files(doomed))
    await asyncio.wait([forgetting], timeout=0.3)
    go_on.set()
    assert (doomed.name, False) == ((await adding).name, await forgetting)
    assert shelf.store.has(doomed.digest)


async def test_registering_content_again_heals_files_that_were_lost(shelf: Shelf) -> None:
    version = await shelf.add("support", 1)
    shelf.store.delete(version.digest)
    await shelf.add("support", 1)
    assert shelf.store.has(version.digest)


async def test_over_the_quota_nothing_is_added(shelf: Shelf) -> None:
    first = await shelf.add("support", 1)
    with pytest.raises(OverQuota, match=r"raise registry\.quota_bytes"):
        await shelf.add_to(shelf.another(quota_bytes=first.size_bytes + 10), "support", 2)
    assert [first.digest] == shelf.store.digests()


async def test_content_that_is_there_already_costs_no_quota(shelf: Shelf) -> None:
    first = await shelf.add("a", 1)
    tight = shelf.another(quota_bytes=first.size_bytes)
    assert 1 == (await shelf.add_to(tight, "b", 1))[0].number
    assert 1 == (await shelf.add_to(tight, "a", 1))[0].number


async def test_a_registration_over_the_quota_first_collects_after_draining(shelf: Shelf) -> None:
    drained: list[tuple[int, bool]] = []

    async def drain(version: Version) -> bool:
        drained.append((version.number, shelf.store.has(version.digest)))
        return True

    size = (await shelf.add("support", 1)).size_bytes
    for seed in (2, 3):
        await shelf.add("support", seed)
    registry = shelf.another(quota_bytes=3 * size + 10, keep_versions=1, drain=drain)
    version, _ = await shelf.add_to(registry, "support", 4)
    assert [(2, True)] == drained
    assert [4, 3, 1] == numbers(await registry.versions("support"))
    assert version.digest in shelf.store.digests()
    assert 3 == len(shelf.store.digests())


async def test_files_that_an_engine_may_still_read_stay(shelf: Shelf) -> None:
    async def drain(version: Version) -> bool:
        return False

    await shelf.add("support", 1)
    doomed = await shelf.add("support", 2)
    registry = shelf.another(drain=drain)
    await registry.remove("support@v2")
    assert [] == await registry.reclaim()
    assert shelf.store.has(doomed.digest)


async def test_without_a_way_to_drain_no_files_are_deleted(shelf: Shelf) -> None:
    size = (await shelf.add("support", 1)).size_bytes
    doomed = await shelf.add("support", 2)
    await shelf.registry.remove("support@v2")
    with pytest.raises(OverQuota):
        await shelf.add_to(shelf.another(quota_bytes=2 * size + 10), "support", 3)
    assert shelf.store.has(doomed.digest)


async def test_a_diff_names_what_changed_and_nothing_else(shelf: Shelf) -> None:
    a = await shelf.add("support", 1, manifest={"licence": "MIT", "lineage": {"job": "1"}})
    b = await shelf.add("support", 2, rank=4, manifest={"licence": "MIT", "lineage": {"job": "2"}})
    assert {
        "a": a.name,
        "b": b.name,
        "facts": {
            "parameters": [1280, 640],
            "rank": [8, 4],
            "size_bytes": [a.size_bytes, b.size_bytes],
        },
        "config": {"r": [8, 4], "lora_alpha": [16, 8]},
        "manifest": {"lineage": [{"job": "1"}, {"job": "2"}]},
    } == await shelf.registry.diff("support@v1", "support@v2")


async def test_the_first_look_at_changes_shows_every_living_version(shelf: Shelf) -> None:
    first, second = await shelf.add("support", 1), await shelf.add("support", 2)
    await shelf.add("support", 3)
    other = await shelf.add("other", 1)
    await shelf.registry.remove("support@v3")
    changes = await shelf.registry.changes()
    assert changes.whole
    assert {"other": [other], "support": [second, first]} == changes.adapters


@pytest.mark.parametrize("change", ["add", "promote", "rollback", "remove", "remove all", "collect"])
async def test_changes_since_a_moment_show_the_changed_adapter_whole_and_no_other(
    shelf: Shelf, change: str
) -> None:
    for seed in (1, 2, 3):
        await shelf.add("support", seed)
    await shelf.add("other", 1)
    await shelf.registry.promote("support@v3")
    before = await shelf.registry.changes()
    match change:
        case "add":
            await shelf.add("support", 4)
        case "promote":
            await shelf.registry.promote("support@v2")
        case "rollback":
            await shelf.registry.rollback("support")
        case "remove":
            await shelf.registry.remove("support@v2")
        case "remove all":
            await shelf.registry.remove("support")
        case "collect":
            await shelf.another(keep_versions=1).collect()
    now = await shelf.registry.changes()
    changes = await shelf.registry.changes(before.at)
    assert (False, now.at) == (changes.whole, changes.at)
    assert {"support": now.adapters.get("support", [])} == changes.adapters
    assert now.adapters != before.adapters


async def test_nothing_has_changed_since_the_last_look(shelf: Shelf) -> None:
    await shelf.add("support", 1)
    before = await shelf.registry.changes()
    await shelf.add("support", 1)  # the same again
    await shelf.registry.collect()
    again = await shelf.registry.changes(before.at)
    assert ({}, False, before.at) == (again.adapters, again.whole, again.at)


async def test_an_older_database_than_the_moment_is_from_is_read_whole(shelf: Shelf) -> None:
    version = await shelf.add("support", 1)
    changes = await shelf.registry.changes((await shelf.registry.changes()).at + 1)
    assert (True, {"support": [version]}) == (changes.whole, changes.adapters)


async def test_a_rollback_target_is_listed_for_the_routes_that_have_one(shelf: Shelf) -> None:
    for name in ("moved", "back", "still"):
        await shelf.add(name, 1)
        await shelf.add(name, 2)
    await shelf.registry.promote("moved@v2")
    await shelf.registry.promote("back@v2")
    await shelf.registry.rollback("back")
    found = {adapter.name: adapter.rollback_to for adapter in await shelf.registry.adapters()}
    assert {"back": None, "moved": 1, "still": None} == {name: v and v.number for name, v in found.items()}


async def test_a_change_that_changes_nothing_is_not_announced(shelf: Shelf, postgres_url: str) -> None:
    await shelf.add("support", 1)
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute("LISTEN hotswap_registry")
        assert [] == await shelf.registry.collect()
        await shelf.registry.promote("support@v1")
        await connection.execute("NOTIFY hotswap_registry, 'mark'")
        assert ["mark"] == [note.payload async for note in connection.notifies(timeout=5, stop_after=1)]


@pytest.mark.parametrize("change", ["add", "promote", "rollback", "remove", "collect", "forget_files"])
async def test_every_change_is_announced(shelf: Shelf, postgres_url: str, change: str) -> None:
    await shelf.add("support", 1)
    second = await shelf.add("support", 2)
    if change == "rollback":
        await shelf.registry.promote("support@v2")
    if change == "forget_files":
        await shelf.registry.remove("support@v2")
    if change == "collect":
        await shelf.add("support", 3)
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute("LISTEN hotswap_registry")
        await {
            "add": lambda: shelf.add("support", 3),
            "promote": lambda: shelf.registry.promote("support@v2"),
            "rollback": lambda: shelf.registry.rollback("support"),
            "remove": lambda: shelf.registry.remove("support@v2"),
            "collect": lambda: shelf.another(keep_versions=1).collect(),
            "forget_files": lambda: shelf.registry.forget_files(second),
        }[change]()
        assert 1 == len([note async for note in connection.notifies(timeout=5, stop_after=1)])
