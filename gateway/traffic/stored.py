"""Stored chat completions, as OpenAI has them: read, listed, given other metadata, and deleted by their apps.

What is there is what traffic remembers whole of exchanges that were asked with `"store": true`. It is the
tenant's: any of its keys reaches it, and no other's. Deleting is forgetting one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from gateway.errors import BadRequest, NotFound, TooLarge
from gateway.requestid import when
from gateway.traffic.amendments import Amendments, checked, reachable
from gateway.traffic.completion import PREFIX, Kept, completion, message, message_id, page
from gateway.traffic.forgetting import Forgetting
from gateway.traffic.policy import Policies
from gateway.traffic.query import PAGE_BYTES, Forgotten, Stored, Wanted, one
from gateway.traffic.redact import redact_json

MAX_BODY_BYTES = 128 * 1024
"""Of an update: the most that metadata may be, with every character escaped."""
AMENDED = 1000
"""Exchanges with other metadata that one question names."""

_encode = msgspec.json.Encoder().encode
_row = msgspec.json.Decoder(Kept).decode
_raw = msgspec.json.Decoder(list[msgspec.Raw] | None).decode


class Key(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...


class Readers(Protocol):
    """Who answers questions (`gateway.traffic.readers`)."""

    def ask(
        self, operation: str, wanted: Wanted, forgotten: Sequence[Forgotten], /
    ) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: at most `limit` after the one with the id `after`, in the order of their time."""

    after: str | None = None
    limit: int = 20
    oldest_first: bool = True


class _Part(msgspec.Struct):
    """What a reader tells of a page."""

    data: list[Kept]
    next: str | None


class StoredCompletions:
    """Answers are JSON. Every call raises `Unavailable` while Postgres or the lake is away, and `NotFound`
    where there is no lake.
    """

    def __init__(
        self, readers: Readers, forgetting: Forgetting, policies: Policies, amendments: Amendments
    ) -> None:
        self._readers = readers
        self._forgetting = forgetting
        self._policies = policies
        self._amendments = amendments
        # Of the readers one is left to the operators, however many apps ask for long lists.
        self._listing = asyncio.Semaphore(1)

    async def list(
        self, key: Key, part: Page, model: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> bytes:
        """Those of the key's tenant. `model` is a route or a version; of `metadata`, all must fit. Raises
        `BadRequest`, and `NotFound` when there are none because the key's words are not remembered.
        """
        pairs = checked(metadata)
        after = None if part.after is None else _id_of(part.after)
        if part.after is not None and after is None:
            raise BadRequest(
                f"`after` is the id of a chat completion, `{PREFIX}…`, and not {part.after[:64]!r}.",
                code="invalid_value",
                param="after",
            )
        async with self._listing:
            found, more = await self._find_page(key.tenant, part, after, model, pairs)
        if not found and after is None:
            self._check_remembered(key, model)
        return page([completion(each) for each in found], more=more)

    async def retrieve(self, key: Key, id: str) -> bytes:
        """Raises `NotFound` for one that is unknown, another tenant's or forgotten; so do the others."""
        return _encode(completion(await self._find(key, id)))

    async def messages(self, key: Key, id: str, part: Page) -> bytes:
        """What it was asked with. Raises `BadRequest`."""
        kept = await self._find(key, id)
        said = _raw(kept.messages) or []
        numbers = list(range(len(said)))
        if not part.oldest_first:
            numbers.reverse()
        if part.after is not None:
            ids = [message_id(kept.id, number) for number in numbers]
            if part.after not in ids:
                raise BadRequest(
                    f"`after` is the id of one of this completion's messages, not {part.after[:80]!r}.",
                    code="invalid_value",
                    param="after",
                )
            numbers = numbers[ids.index(part.after) + 1 :]
        chosen = [message(kept, number, said[number]) for number in numbers[: part.limit]]
        return page(chosen, more=len(numbers) > part.limit)

    async def update(self, key: Key, id: str, body: bytes | bytearray) -> bytes:
        """Puts `metadata` in the place of what it has; nothing else can be changed. Raises `BadRequest`."""
        pairs = _metadata_in(body)
        kept = await self._find(key, id)
        if kept.redacted:
            pairs = redact_json(pairs)[0]
        await self._amendments.put(kept.id, key.tenant, pairs, kept.last_day)
        kept.metadata = pairs
        return _encode(completion(kept))

    async def delete(self, key: Key, id: str) -> bytes:
        """Nobody reads it any more; then it is erased."""
        kept = await self._find(key, id)
        with reachable():
            await self._forgetting.add("request", kept.id, key.tenant)
        deleted = {"object": "chat.completion.deleted", "id": PREFIX + kept.id, "deleted": True}
        return _encode(deleted)

    async def _find(self, key: Key, id: str) -> Kept:
        bare = _id_of(id)
        if bare is None:
            raise _unknown(id)
        wanted = msgspec.structs.replace(one(bare), tenant=key.tenant, stored=Stored())
        try:
            kept = _row(await self._ask("show", wanted))
        except NotFound as error:
            if error.code != "exchange_not_found":
                raise
            raise _unknown(id) from None
        if not kept.is_stored():
            raise _unknown(id)
        now = await self._amendments.of([kept.id])
        kept.metadata = now.get(kept.id, kept.metadata)
        return kept

    async def _find_page(
        self, tenant: str, part: Page, after: str | None, model: str | None, pairs: dict[str, str]
    ) -> tuple[Sequence[Kept], bool]:
        """The page, and whether there is more."""
        found: list[Kept] = []
        size = 0
        while True:
            stored = await self._asked(tenant, part, after, model, pairs)
            wanted = Wanted(
                tenant=tenant, limit=part.limit + 1, oldest_first=part.oldest_first, stored=stored
            )
            answer = await self._ask("stored", wanted)
            told = msgspec.json.decode(answer, type=_Part)
            now = await self._amendments.of([each.id for each in told.data])
            for each in told.data:
                each.metadata = now.get(each.id, each.metadata)
                if each.is_stored() and each.has(pairs):
                    found.append(each)
            after = told.next or stored.upto
            size += len(answer) if found else 0
            if after is None or len(found) > part.limit or size > PAGE_BYTES:
                return found[: part.limit], len(found) > part.limit or after is not None

    async def _asked(
        self, tenant: str, part: Page, after: str | None, model: str | None, pairs: dict[str, str]
    ) -> Stored:
        """What a reader is asked. It knows nothing of amendments, so it is told which exchanges have such
        metadata now; where they are too many for one question, it looks no further than they reach.
        """
        if not pairs:
            return Stored(model=model, after=after)
        amended = await self._amendments.holding(
            tenant, pairs, after, oldest_first=part.oldest_first, limit=AMENDED
        )
        upto = amended[-1] if len(amended) == AMENDED else None
        return Stored(model=model, metadata=pairs, amended=tuple(amended), after=after, upto=upto)

    async def _ask(self, operation: str, wanted: Wanted) -> bytes:
        pieces = self._readers.ask(operation, wanted, self._forgetting.now)
        return b"".join([piece async for piece in pieces])

    def _check_remembered(self, key: Key, model: str | None) -> None:
        """An empty list must not hide that there is nothing that could be in it."""
        route = None if model is None else model.partition("@")[0]
        if not self._policies.keeps_words(key.id, route):
            of = "this key" if route is None else f"this key at {route[:64]!r}"
            raise NotFound(
                f"Nothing is stored: this gateway does not remember what is asked with {of}. Its operator "
                "can change that: traffic.capture, or `hotswap traffic policy`.",
                code="not_remembered",
            )


def _id_of(id: str) -> str | None:
    """The request id in a completion's id; None for what is none."""
    bare = id.removeprefix(PREFIX)
    try:
        when(bare)
    except ValueError:
        return None
    return bare


def _unknown(id: str) -> NotFound:
    return NotFound(
        f"No stored chat completion {id[:64]!r} is there. A key sees those that its tenant's keys asked with "
        '`"store": true`, from a moment after their end on, as long as this gateway remembers them whole.',
        code="completion_not_found",
        param="completion_id",
    )


def _metadata_in(body: bytes | bytearray) -> dict[str, str]:
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"An update has at most {MAX_BODY_BYTES:,} bytes; this has {len(body):,}.")
    try:
        given: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"The body is not {{metadata}}: {error}.", code="invalid_json") from error
    if not isinstance(given, dict) or "metadata" not in given:
        raise BadRequest(
            "The body is an object with `metadata`, which takes the place of what there is.",
            code="missing_required_parameter",
            param="metadata",
        )
    for name in given:
        if name != "metadata":
            raise BadRequest(
                f"`{name[:64]}` cannot be changed; only `metadata` can.",
                code="unknown_parameter",
                param=name[:64],
            )
    return checked(given["metadata"])
