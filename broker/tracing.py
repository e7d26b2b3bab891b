"""Spans for OpenTelemetry: one for each publish over HTTP, and one for each dispatch that links to it.

The publish span continues the trace of the request's `traceparent`, or begins one. Its own is kept in each event
(`broker.traceparent`), and whichever daemon hands the event on makes a span with a link to it. A service that puts
the field into its events by itself is linked to in the same way.

Laws: nothing here waits; spans go out from a thread of the SDK, which drops what is too much for it. Where tracing is
off there is no object of this class, and nothing is looked at.
Bounds: `_DISPATCHES_PER_SECOND` spans of dispatches; `_CLOSE_SECONDS` to send the last. Events for users get no field,
and have no dispatch: they reach clients by the control channel.

Source: W3C Trace Context; OpenTelemetry, "Semantic conventions for messaging": create and process spans, linked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, evolve, field

from broker import __version__
from broker.config.sections import Tracing as Section
from broker.errors import ConfigError, Problem
from broker.request import RequestRefused
from broker.submission import USERS_CHANNEL, Item
from broker.traceparent import FIELD, found_in, marked

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_DISPATCHES_PER_SECOND = 200
_CLOSE_SECONDS = 2.0


@define(eq=False)
class PublishSpan:
    """One publish over HTTP, while it lasts."""

    _span: Span
    _message_max_bytes: int

    def marked(self, items: Sequence[Item]) -> list[Item]:
        """The events with this publish's `traceparent`, where there is room for it."""
        context = self._span.get_span_context()
        text = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        names = {item.channel for item in items}
        self._span.set_attribute("messaging.batch.message_count", len(items))
        if len(names) == 1:
            self._span.set_attribute("messaging.destination.name", names.pop())
        return [
            item
            if item.channel == USERS_CHANNEL
            else evolve(item, payload=marked(item.payload, text, self._message_max_bytes))
            for item in items
        ]


@define(eq=False)
class Tracing:
    """Makes spans.

    Args:
        provider: whose tracer is used; closed by `close`.
        message_max_bytes: as many bytes as an event may have.
    """

    _provider: TracerProvider
    _message_max_bytes: int
    _tracer: Any = field(init=False)
    _second: int = field(init=False, default=0)
    _dispatches: int = field(init=False, default=0)  # in that second

    def __attrs_post_init__(self) -> None:
        self._tracer = self._provider.get_tracer("broker", __version__)

    @classmethod
    def from_settings(cls, section: Section, message_max_bytes: int) -> Tracing | None:
        """What the settings ask for; None where tracing is off. Spans go where OTEL_EXPORTER_OTLP_* say.

        Raises:
            ConfigError: the SDK is not installed.
        """
        if section.mode == "off":
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            why = f"{error.name} is not installed; pip install 'broker[opentelemetry]', or set it to off"
            raise ConfigError([Problem("tracing.mode", why)]) from None
        facts = {"service.version": __version__}
        if "OTEL_SERVICE_NAME" not in os.environ and "service.name" not in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            facts["service.name"] = "broker"
        # Its own way to end would hold up the process for as long as the collector does not answer.
        provider = TracerProvider(resource=Resource.create(facts), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider, message_max_bytes)

    @contextmanager
    def publishing(self, headers: Mapping[str, str]) -> Iterator[PublishSpan]:
        """A span for one publish.

        Args:
            headers: those of the request, by lower-case name.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract(headers)
        span = self._tracer.start_span("publish", context, SpanKind.PRODUCER, {"messaging.system": "broker"})
        try:
            yield PublishSpan(span, self._message_max_bytes)
        except RequestRefused as refused:
            span.set_attribute("error.type", str(refused.status))
            span.set_status(Status(StatusCode.ERROR, refused.detail))
            raise
        finally:
            span.end()

    def dispatched(self, messages: Sequence[Any], skip: int, is_heard: Callable[..., bool], seconds: float) -> None:
        """What one read brought has been handed on. Synchronous; raises nothing.

        Args:
            messages: replies of Redis.
            skip: bytes of the prefix in front of each channel's name.
            is_heard: as `Hub.hands_on`.
            seconds: how long it took.
        """
        for each in messages:
            if type(each) is list and each[0] == b"message" and FIELD in each[2]:
                name, payload = each[1][skip:], each[2]
                found = found_in(payload)
                if found is not None and is_heard(name, is_stamped=payload[:1] == b"\x01") and self._has_room():
                    self._link(name, found, seconds)

    def _has_room(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._dispatches = second, 0
        self._dispatches += 1
        return self._dispatches <= _DISPATCHES_PER_SECOND

    def _link(self, name: bytes, found: tuple[int, int], seconds: float) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

        ended_at = time.time_ns()
        span = self._tracer.start_span(
            "dispatch",
            Context(),
            SpanKind.CONSUMER,
            {"messaging.system": "broker", "messaging.destination.name": name.decode(errors="replace")},
            [Link(SpanContext(*found, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))],
            start_time=ended_at - round(seconds * 1e9),
        )
        span.end(ended_at)

    async def close(self) -> None:
        """Send what is left. Takes `_CLOSE_SECONDS` at most; the thread may go on until the process ends."""
        with trio.move_on_after(_CLOSE_SECONDS):
            await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)
