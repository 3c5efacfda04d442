"""Report cards and further names of versions, over a real Postgres."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.errors import Conflicting, Refused
from tests.adapters.conftest import Shelf

CARD = {"passed": True, "findings": [{"gate": "parity", "passed": True}]}


async def test_a_card_is_kept_with_its_version_and_everybody_hears_of_it(shelf: Shelf) -> None:
    version = await shelf.add("support", 1)
    before = (await shelf.registry.changes()).at
    graded = await shelf.registry.grade(version.name, CARD, by="ann")
    assert (None, True) == (version.proved, graded.proved)
    assert CARD == await shelf.registry.card(version.name)
    changed = await shelf.registry.changes(before)
    assert [True] == [each.proved for each in changed.adapters["support"]]


async def test_promotions_without_a_passed_card_are_on_record(shelf: Shelf) -> None:
    await shelf.add("support", 1)
    proved, other = await shelf.add("support", 2), await shelf.add("support", 3)
    await shelf.registry.grade(proved.name, CARD)
    await shelf.registry.promote(proved.name)
    await shelf.registry.promote(other.name, force=True)
    history = await shelf.registry.history("support")
    assert [True, False, True] == [event.forced for event in history if event.action == "promote"]


@pytest.mark.parametrize("card", [{"passed": True, "x": "\0"}, {"passed": float("nan")}])
async def test_a_card_that_postgres_cannot_keep_is_refused(shelf: Shelf, card: dict[str, Any]) -> None:
    version = await shelf.add("support", 1)
    with pytest.raises(Refused) as caught:
        await shelf.registry.grade(version.name, card)
    assert "bad_card" == caught.value.code


NAMED = "ft:tiny:default:care:AbCd1234"


async def test_a_version_answers_to_a_further_name_for_good(shelf: Shelf) -> None:
    first = await shelf.add("support", 1)
    before = (await shelf.registry.changes()).at
    assert (NAMED,) == (await shelf.registry.call(first.name, NAMED)).names
    changes = await shelf.registry.changes(before)
    assert [(NAMED,)] == [version.names for version in changes.adapters["support"]]
    second = await shelf.add("support", 2)
    await shelf.registry.promote(second.name)
    assert (NAMED,) == (await shelf.registry.show(first.name)).names


async def test_a_name_given_again_changes_nothing_and_given_to_another_is_refused(shelf: Shelf) -> None:
    one, two = await shelf.add("support", 1), await shelf.add("support", 2)
    await shelf.registry.call(one.name, NAMED)
    at = (await shelf.registry.changes()).at
    await shelf.registry.call(one.name, NAMED)
    assert at == (await shelf.registry.changes()).at
    with pytest.raises(Conflicting, match="another version's name"):
        await shelf.registry.call(two.name, NAMED)


@pytest.mark.parametrize("name", ["support", "ft:a:b:c", "ft:a:b:c:d:E", "ft:a:b:c d:e", "ft:" + "a" * 400])
async def test_a_further_name_has_the_form_of_a_fine_tuned_models(shelf: Shelf, name: str) -> None:
    version = await shelf.add("support", 1)
    with pytest.raises(Refused, match="no name of a fine-tuned model"):
        await shelf.registry.call(version.name, name)


async def test_a_version_with_a_name_of_its_own_is_not_collected(shelf: Shelf) -> None:
    registry = shelf.another(keep_versions=1)
    versions = [await shelf.add("support", seed) for seed in range(4)]
    await registry.call(versions[1].name, NAMED)
    assert [versions[2].name] == [version.name for version in await registry.collect()]
