"""A run as a trace: what a collector of OpenTelemetry is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.training.test_main import spec_file
from training.__main__ import main


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Spans that were sent to the collector which the environment names."""
    spans: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield spans
        server.shutdown()


def known(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_run_is_a_trace_of_its_parts(
    sent: list[Any], small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{'ab' * 16}-{'cd' * 8}-01")
    assert 0 == main([spec_file(tmp_path, base=str(small_base), job="ftjob-1", max_rank=8)])
    spans = {span.name: span for span in sent}
    assert sorted(spans) == ["load", "save", "steps", "train"]
    train = spans["train"]
    assert (train.trace_id.hex(), train.parent_span_id.hex()) == ("ab" * 16, "cd" * 8)
    for name in ("load", "steps", "save"):
        assert spans[name].parent_span_id == train.span_id, name
    told = {"hotswap.job": "ftjob-1", "hotswap.method": "sft", "hotswap.steps": 6}
    assert told.items() <= known(train).items()
    assert [event.name for event in spans["steps"].events] == ["checkpoint"] * 6
    assert train.status.code == 0


def test_what_went_wrong_is_in_the_trace(sent: list[Any], small_base: Path, tmp_path: Path) -> None:
    asked = spec_file(tmp_path, base=str(small_base), max_rank=8)
    (tmp_path / "rows.jsonl").write_text('{"messages": 1}\n')
    assert 1 == main([asked])
    (train,) = sent
    assert (train.name, train.status.code) == ("train", 2)
    assert "line 1" in train.status.message


def test_without_a_collector_no_trace_is_made(small_base: Path, tmp_path: Path) -> None:
    from training.spans import span, tracing

    with tracing(), span("train"):
        from opentelemetry.trace import get_current_span

        assert not get_current_span().get_span_context().is_valid
