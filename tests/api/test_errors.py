"""Failures of every origin become OpenAI's error body."""

from __future__ import annotations

import pytest

from adapters.errors import AdapterError, Conflicting, OverQuota, Refused, StoreFull, TooBig, Unknown
from gateway.api.errors import as_gateway_error, engine_error, error_body, is_unknown_model
from gateway.errors import BadRequest, Unavailable


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused("bad rank", code="rank"), 400, "rank"),
        (Unknown("no such adapter"), 404, "adapter_not_found"),
        (Conflicting("serves a route"), 409, "conflict"),
        (TooBig("3 GiB"), 413, "adapter_too_large"),
        (OverQuota("full"), 507, "over_quota"),
        (StoreFull("disk"), 507, "store_full"),
        (AdapterError("other", code="x"), 400, "x"),
    ],
)
def test_a_registry_failure_has_its_status_and_code(error: AdapterError, status: int, code: str) -> None:
    mapped = as_gateway_error(error)
    assert (status, code, error.message) == (mapped.status, mapped.code, mapped.message)


def test_a_failure_that_nobody_foresaw_tells_nothing() -> None:
    mapped = as_gateway_error(RuntimeError("password=hunter2"))
    assert 500 == mapped.status
    assert "hunter2" not in mapped.message


def test_an_error_body_has_openais_members() -> None:
    error = BadRequest("no", code="c", param="p")
    expected = {"message": "no", "type": "invalid_request_error", "param": "p", "code": "c"}
    assert {"error": expected} == error_body(error)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error":{"message":"bad n","type":"BadRequestError","param":"n","code":400}}', "bad n"),
        (404, b'{"detail":"Not Found"}', "The engine refused this request (404)."),
        (422, b"<html>", "The engine refused this request (422)."),
        (500, b'{"error":{"message":"/root/x.py","code":500}}', "The engine failed on this request."),
        (501, b'{"error":{"message":"no such API","code":501}}', "no such API"),
    ],
)
def test_an_engines_words_are_kept_for_4xx_only(status: int, body: bytes, expected: str) -> None:
    assert engine_error(status, body).message.startswith(expected)


@pytest.mark.parametrize("body", [b"[]", b'{"error": 7}', b'{"error": {"message": 7, "param": 7}}', b"\xff"])
def test_an_engines_body_of_any_shape_is_survived(body: bytes) -> None:
    assert 400 == engine_error(400, body).status


def test_an_engines_retry_after_is_kept() -> None:
    assert {"retry-after": "7"} == engine_error(503, b"", b"7").headers()


def test_a_dead_engine_is_unavailable_although_it_answers_500() -> None:
    said = b'{"error":{"message":"EngineCore encountered an issue.","type":"InternalServerError","code":500}}'
    assert isinstance(engine_error(500, said), Unavailable)


def test_an_unknown_model_is_told_from_an_unknown_path() -> None:
    assert is_unknown_model(404, b'{"error":{"message":"m","param":"model","code":404}}')
    assert not is_unknown_model(404, b'{"detail":"Not Found"}')
    assert not is_unknown_model(400, b'{"error":{"message":"m","param":"model","code":400}}')
