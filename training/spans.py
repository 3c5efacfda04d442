"""A run as a trace (OpenTelemetry), sent where OTEL_EXPORTER_OTLP_ENDPOINT says; without it, nothing is made.

    train                  hotswap.job, .method, .base, .rows, .learned_tokens, .steps, .final_loss
      load                 the base
      steps                with an event for each checkpoint and validation
      save                 the adapter

Where the environment has a TRACEPARENT (W3C), the trace is that one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from training.launch.together import here

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_tracer: Tracer | None = None


@contextmanager
def tracing() -> Iterator[None]:
    """Within it spans are made, by the first of several processes; at its end they have been sent."""
    global _tracer
    if not here().leads or not any(map(os.environ.get, ENDPOINTS)):
        yield
        return
    from opentelemetry import context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    name = os.environ.get("OTEL_SERVICE_NAME", "hotswap-trainer")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    parent = {"traceparent": os.environ.get("TRACEPARENT", "")}
    token = context.attach(TraceContextTextMapPropagator().extract(parent))
    _tracer = provider.get_tracer("hotswap.training")
    try:
        yield
    finally:
        _tracer = None
        context.detach(token)
        provider.shutdown()


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[None]:
    """Around what it names; an exception is recorded in it. `job` becomes hotswap.job, and so on."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(name, attributes=_named(attributes)):
        yield


def event(name: str, **attributes: Any) -> None:
    """In the span that is open."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().add_event(name, _named(attributes))


def note(**attributes: Any) -> None:
    """More about the span that is open."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(_named(attributes))


def _named(attributes: dict[str, Any]) -> dict[str, Any]:
    return {f"hotswap.{name}": value for name, value in attributes.items() if value is not None}
