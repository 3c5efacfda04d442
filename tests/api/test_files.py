"""The Files API, by the openai SDK and by hand."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from gateway.db import Database
from gateway.requestid import ID
from tests.api.control import Control, running

ROW = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n'


@pytest.fixture
async def control(db: Database, tmp_path: Path) -> AsyncIterator[Control]:
    async with running(db, tmp_path) as started:
        yield started


async def test_a_file_is_uploaded_read_listed_and_deleted_by_the_sdk(control: Control) -> None:
    files = control.sdk.files
    made = await files.create(file=("rows.jsonl", ROW), purpose="fine-tune")
    assert ("file", "rows.jsonl", len(ROW), "fine-tune", "processed") == (
        made.object,
        made.filename,
        made.bytes,
        made.purpose,
        made.status,
    )
    assert made == await files.retrieve(made.id)
    assert ROW == (await files.content(made.id)).content
    assert [made.id] == [file.id async for file in files.list()]
    assert (await files.delete(made.id)).deleted
    assert [] == [file.id async for file in files.list()]
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        await files.retrieve(made.id)


async def test_answers_and_errors_have_an_id_that_the_sdk_shows(control: Control) -> None:
    made = await control.sdk.files.create(file=("rows.jsonl", ROW), purpose="fine-tune")
    read = await control.sdk.files.retrieve(made.id)
    with pytest.raises(openai.NotFoundError) as missing:
        await control.sdk.files.retrieve("file-none")
    ids = {made._request_id, read._request_id, missing.value.request_id}
    assert 3 == len(ids) and all(ID.fullmatch(each or "") for each in ids)


async def test_a_list_comes_in_pages_newest_first_unless_it_is_asked_otherwise(control: Control) -> None:
    made = [
        (await control.sdk.files.create(file=(f"{n}.jsonl", ROW * n), purpose="fine-tune")).id
        for n in range(1, 6)
    ]
    assert made[::-1] == [file.id async for file in control.sdk.files.list(limit=2)]
    assert made == [file.id async for file in control.sdk.files.list(limit=2, order="asc")]
    page = await control.sdk.files.list(limit=2, order="asc", after=made[1])
    assert (made[2:4], True) == ([file.id for file in page.data], page.has_more)


async def test_a_list_can_be_of_one_purpose(control: Control) -> None:
    made = await control.sdk.files.create(file=("a.jsonl", ROW), purpose="evals")
    await control.sdk.files.create(file=("b.jsonl", ROW), purpose="fine-tune")
    assert [made.id] == [file.id async for file in control.sdk.files.list(purpose="evals")]


async def test_another_tenant_sees_nothing_of_a_file(control: Control) -> None:
    made = await control.sdk.files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    async with control.sdk_of("other") as other:
        assert [] == [file.id async for file in other.files.list()]
        for call in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                await call(made.id)
    assert ROW == (await control.sdk.files.content(made.id)).content


async def test_the_same_content_lies_on_the_disk_once_and_goes_with_the_last_file(control: Control) -> None:
    made = [await control.sdk.files.create(file=("a.jsonl", ROW), purpose="fine-tune") for _ in range(2)]
    blobs = lambda: list((control.files.blobs.path("a" * 64).parents[1]).rglob("*/*"))  # noqa: E731
    assert 1 == len(blobs())
    await control.sdk.files.delete(made[0].id)
    assert ROW == (await control.sdk.files.content(made[1].id)).content
    await control.sdk.files.delete(made[1].id)
    assert [] == blobs()


async def test_a_file_that_has_expired_is_gone(control: Control) -> None:
    made = await control.sdk.files.create(
        file=("a.jsonl", ROW), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    async with control.database.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE files SET expires_at = now() - interval '1 s'")
    with pytest.raises(openai.NotFoundError):
        await control.sdk.files.retrieve(made.id)


async def test_the_fields_may_come_after_the_file(control: Control) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + ROW
        + b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await control.http.post("/v1/files", content=body, headers=headers)
    assert (200, len(ROW)) == (answer.status_code, answer.json()["bytes"])


@pytest.mark.parametrize(
    ("files", "data", "status", "code"),
    [
        ({"file": ("a.jsonl", ROW)}, {}, 400, "missing_required_parameter"),
        ({"file": ("a.jsonl", ROW)}, {"purpose": "assistants"}, 400, "invalid_purpose"),
        ({"file": ("a.jsonl", ROW)}, {"purpose": "fine-tune-results"}, 400, "invalid_purpose"),
        ({"file": ("a.csv", ROW)}, {"purpose": "fine-tune"}, 400, "invalid_file_format"),
        ({"file": ("a.jsonl", b"")}, {"purpose": "fine-tune"}, 400, "empty_file"),
        ({"other": ("a.jsonl", ROW)}, {"purpose": "fine-tune"}, 400, "unknown_parameter"),
        ({"file": ("a.jsonl", ROW)}, {"purpose": "fine-tune", "extra": "1"}, 400, "unknown_parameter"),
        ({"file": ("a.jsonl", ROW * 20_000)}, {"purpose": "fine-tune"}, 413, "file_too_large"),
        ({"file": ("a.jsonl", ROW)}, {"purpose": "p" * 5000}, 400, "string_above_max_length"),
        (
            {"file": ("a.jsonl", ROW)},
            {"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": "5"},
            400,
            "invalid_value",
        ),
    ],
)
async def test_a_bad_upload_is_refused_with_a_code(
    control: Control, files: dict[str, tuple[str, bytes]], data: dict[str, str], status: int, code: str
) -> None:
    answer = await control.http.post("/v1/files", files=files, data=data)
    assert (status, code) == (answer.status_code, answer.json()["error"]["code"])
    assert [] == [file.id async for file in control.sdk.files.list()]


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"{}", "application/json", "invalid_content_type"),
        (b"--b\r\n", "multipart/form-data; boundary=b", "invalid_multipart"),
        (b"nonsense", "multipart/form-data; boundary=b", "invalid_multipart"),
        (b"--b\r\nX: 1\r\n\r\n1\r\n--b--\r\n", "multipart/form-data; boundary=b", "invalid_multipart"),
    ],
)
async def test_what_is_no_form_is_refused_with_a_code(
    control: Control, content: bytes, kind: str, code: str
) -> None:
    answer = await control.http.post("/v1/files", content=content, headers={"content-type": kind})
    assert (400, code) == (answer.status_code, answer.json()["error"]["code"])


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "order=up", "after=file-no", "after=%00", "porpose=a"]
)
async def test_a_bad_list_is_refused(control: Control, query: str) -> None:
    answer = await control.http.get(f"/v1/files?{query}")
    assert (400, True) == (answer.status_code, bool(answer.json()["error"]["code"]))


@pytest.mark.parametrize("id", ["file-none", "%00", "..%2f..%2fetc", "x" * 500])
async def test_a_file_that_is_not_there_is_not_found(control: Control, id: str) -> None:
    answer = await control.http.get(f"/v1/files/{id}")
    assert (404, True) == (answer.status_code, bool(answer.json()["error"]["code"]))


async def test_an_inference_key_may_not_touch_files(control: Control) -> None:
    answer = await control.http.get("/v1/files", headers={"authorization": "Bearer app"})
    assert (403, "admin_key_required") == (answer.status_code, answer.json()["error"]["code"])


async def test_files_together_have_a_quota(db: Database, tmp_path: Path) -> None:
    async with running(db, tmp_path, quota_bytes=len(ROW) + 10) as control:
        await control.sdk.files.create(file=("a.jsonl", ROW), purpose="fine-tune")
        with pytest.raises(openai.InternalServerError, match="90 of 100 are taken"):
            await control.sdk.files.create(file=("b.jsonl", ROW), purpose="fine-tune")


async def test_what_a_worker_measured_becomes_a_file_of_the_tenant(control: Control) -> None:
    params = {"tenant": "globex", "filename": "step_metrics.csv"}
    answer = await control.http.post("/admin/v1/files", params=params, content=b"step\n1\n")
    async with control.sdk_of("other") as other:
        found = await other.files.retrieve(answer.json()["id"])
        assert ("fine-tune-results", b"step\n1\n") == (
            found.purpose,
            (await other.files.content(found.id)).content,
        )


async def test_memory_does_not_grow_with_the_file(db: Database, tmp_path: Path) -> None:
    size = 128 << 20
    async with running(db, tmp_path, max_bytes=size * 2, quota_bytes=size * 2) as control:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        async def body() -> AsyncIterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
            for _ in range(size >> 16):
                yield b"x" * (1 << 16)
            yield b"\r\n--b--\r\n"

        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = await control.http.post("/v1/files", content=body(), headers=headers)
        assert (200, size) == (answer.status_code, answer.json()["bytes"])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 << 10  # KiB
