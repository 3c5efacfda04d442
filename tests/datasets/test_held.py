"""What datasets hold and what of it was forgotten, on a real Postgres."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, insert, select, text, update

from adapters import tables as registry
from gateway.datasets import Datasets, NewDataset
from gateway.datasets.held import note
from gateway.datasets.tables import exchanges
from gateway.db import Database
from gateway.errors import BadRequest, NotFound
from gateway.traffic.forgetting import Forgetting
from gateway.traffic.forgetting import table as wishes
from gateway.traffic.unit import hashed

SALT = b"s" * 32
DIGEST = "3f9c2ab71e04" + "0" * 52
REFERENCE = "support@3f9c2ab71e04"


def held(id: str, unit: str = "", **more: Any) -> dict[str, Any]:
    return {"id": id, "unit": hashed(unit.encode(), SALT) if unit else "", "at": time.time() - 60, **more}


def dataset(*held: dict[str, Any], name: str = "support", digest: str = DIGEST) -> NewDataset:
    given = {"name": name, "digest": digest, "rows": len(held), "exchanges": list(held)}
    return NewDataset.model_validate(given)


@pytest.fixture
def datasets(db: Database) -> Datasets:
    return Datasets(db.engine)


@pytest.fixture
def forgetting(db: Database) -> Forgetting:
    return Forgetting(db.engine, SALT)


async def version(db: Database, learned: str, name: str = "support") -> str:
    """Registers a version that names the dataset of that digest in its lineage."""
    manifest = {"lineage": {"dataset_digest": learned}}
    about = {
        "number": 1,
        "state": "registered",
        "has_files": True,
        "size_bytes": 1,
        "rank": 8,
        "inspection": {},
    }
    async with db.engine.begin() as connection:
        made = insert(registry.adapters).values(name=name).returning(registry.adapters.c.id)
        adapter = (await connection.execute(made)).scalar_one()
        row = {"adapter_id": adapter, "digest": "a" * 64, "manifest": manifest, **about}
        await connection.execute(insert(registry.versions).values(row))
    return f"{name}@{'a' * 12}"


async def test_a_dataset_is_told_of_once_however_often(datasets: Datasets) -> None:
    for _ in range(2):
        told = await datasets.add(dataset(held("a"), held("b")))
    assert (REFERENCE, 2, 0) == (told["reference"], told["exchanges"], told["forgotten"])
    assert 1 == len(await datasets.all())


async def test_its_exchanges_may_come_in_pieces(datasets: Datasets) -> None:
    await datasets.add(dataset(held("a")))
    assert 2 == (await datasets.add(dataset(held("b"))))["exchanges"]


async def test_a_wish_to_forget_a_unit_finds_what_is_held_of_it(
    datasets: Datasets, forgetting: Forgetting
) -> None:
    await datasets.add(dataset(held("a", "alice"), held("b", "bob"), held("c", "alice")))
    wish = await forgetting.add("unit", "alice", "default")
    assert ["a", "c"] == await datasets.forgotten(REFERENCE)
    assert [{"name": REFERENCE, "exchanges": 2, "scrubbed": False}] == (await datasets.learned())[wish["id"]][
        "datasets"
    ]


@pytest.mark.parametrize(("kind", "value"), [("request", "a"), ("key", "key_1")])
async def test_so_does_one_of_a_request_or_a_key(
    datasets: Datasets, forgetting: Forgetting, kind: str, value: str
) -> None:
    await datasets.add(dataset(held("a", key="key_1"), held("b", key="key_2")))
    await forgetting.add(kind, value, "default")
    assert ["a"] == await datasets.forgotten(REFERENCE)


async def test_a_dataset_that_is_told_of_after_the_wish_is_found_too(
    datasets: Datasets, forgetting: Forgetting
) -> None:
    """It was built while the wish came."""
    await forgetting.add("request", "a", "default")
    assert 1 == (await datasets.add(dataset(held("a"), held("b"))))["forgotten"]


async def test_what_came_after_the_wish_is_not_meant(datasets: Datasets, forgetting: Forgetting) -> None:
    await forgetting.add("unit", "alice", "default")
    await datasets.add(dataset(held("a", "alice", at=time.time() + 60)))
    assert [] == await datasets.forgotten(REFERENCE)


async def test_the_unit_of_another_tenant_is_not_meant(datasets: Datasets, forgetting: Forgetting) -> None:
    await datasets.add(dataset(held("a", "alice", tenant="acme")))
    await forgetting.add("unit", "alice", "default")
    assert [] == await datasets.forgotten(REFERENCE)


async def test_exchanges_of_nobody_are_not_forgotten_with_somebody(
    datasets: Datasets, forgetting: Forgetting
) -> None:
    await datasets.add(dataset(held("a"), held("b", key="")))
    await forgetting.add("key", "key_1", "default")
    await forgetting.add("unit", "alice", "default")
    assert [] == await datasets.forgotten(REFERENCE)


async def test_what_was_forgotten_is_known_when_the_wish_has_let_go_of_the_name(
    db: Database, datasets: Datasets, forgetting: Forgetting
) -> None:
    await datasets.add(dataset(held("a", "alice")))
    wish = await forgetting.add("unit", "alice", "default")
    engine = create_engine(db.url)
    with engine.begin() as connection:  # as the eraser does it
        note(connection)
        connection.execute(update(wishes).values(closed_at=text("now()"), value="erased", also=""))
    engine.dispose()
    assert (["a"], {wish["id"]}) == (await datasets.forgotten(REFERENCE), set(await datasets.learned()))


async def test_whose_it_was_is_not_kept_of_what_was_forgotten(
    db: Database, datasets: Datasets, forgetting: Forgetting
) -> None:
    await datasets.add(dataset(held("a", "alice", key="key_1"), held("b", "bob", key="key_1")))
    await forgetting.add("unit", "alice", "default")
    await datasets.learned()
    async with db.engine.connect() as connection:
        rows = await connection.execute(select(exchanges.c.exchange).where(exchanges.c.unit != ""))
        assert ["b"] == list(rows.scalars())


async def test_the_versions_that_learned_from_it_are_named(
    db: Database, datasets: Datasets, forgetting: Forgetting
) -> None:
    await datasets.add(dataset(held("a", "alice")))
    await datasets.add(dataset(held("z"), name="other", digest="b" * 64))
    learned = await version(db, DIGEST)
    wish = await forgetting.add("unit", "alice", "default")
    assert [learned] == (await datasets.learned())[wish["id"]]["versions"]
    assert {"support": [learned], "other": []} == {
        each["name"]: each["versions"] for each in await datasets.all()
    }


async def test_scrubbed_is_what_was_said_to_be_and_no_more(
    datasets: Datasets, forgetting: Forgetting
) -> None:
    await datasets.add(dataset(held("a", "alice"), held("b", "bob")))
    first = await forgetting.add("unit", "alice", "default")
    gone = await datasets.forgotten(REFERENCE)
    second = await forgetting.add("unit", "bob", "default")  # before the first was scrubbed
    await datasets.scrubbed(REFERENCE, 1, gone)
    learned = await datasets.learned()
    assert [True, False] == [learned[wish["id"]]["datasets"][0]["scrubbed"] for wish in (first, second)]
    (told,) = await datasets.all("support")
    assert (2, 1, 1) == (told["forgotten"], told["not_scrubbed"], told["scrubbed_rows"])


@pytest.mark.parametrize("reference", ["support", "support@v1", "x", "support@" + "0" * 12])
async def test_a_dataset_that_is_not_there_is_refused(datasets: Datasets, reference: str) -> None:
    with pytest.raises((NotFound, BadRequest)):
        await datasets.forgotten(reference)


@pytest.mark.parametrize(
    "wrong", [{"name": "../x"}, {"digest": "abc"}, {"rows": -1}, {"more": 1}, {"exchanges": [{"id": ""}]}]
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NewDataset.model_validate({"name": "support", "digest": DIGEST, "rows": 1, **wrong})
