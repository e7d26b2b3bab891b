"""Traces: a span for each publish over HTTP, one for each dispatch, and the field in the event that links them."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broker import __version__
from broker.config.sections import Tracing as Section
from broker.errors import ConfigError
from broker.events import JobProgress, check
from broker.request import RequestRefused
from broker.submission import USERS_CHANNEL, Item
from broker.traceparent import found_in, marked
from broker.tracing import Tracing
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import close_all, open_websockets, pump, wait_until
from tests.actors.redis_server import RedisServer
from tests.metrics.collector import open_collector

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0x00F067AA0BA902B7
TEXT = f"00-{TRACE:032x}-{SPAN:016x}-01"
FIELD = f'"traceparent":"{TEXT}"'.encode()


@pytest.mark.parametrize(
    ("event", "longer"),
    [
        (b'{"type":"x"}', b"{" + FIELD + b',"type":"x"}'),
        (b' {"type":"x"}'[1:] + b"\n", b"{" + FIELD + b',"type":"x"}\n'),
        (b"{}", b"{" + FIELD + b"}"),
        (b"{ \n }", b"{" + FIELD + b" \n }"),
        (b'{"data":{"traceparent":"no"}}', b"{" + FIELD + b',"data":{"traceparent":"no"}}'),
        (b'{"type":"x","traceparent":"its own"}', b'{"type":"x","traceparent":"its own"}'),
        (b'{"type":"x","traceparent":null}', b'{"type":"x","traceparent":null}'),
    ],
)
def test_an_event_gets_the_field_and_is_otherwise_as_it_was(event: bytes, longer: bytes) -> None:
    assert marked(event, TEXT, 1000) == longer
    json.loads(longer)


def test_an_event_that_would_be_too_long_stays_as_it_is() -> None:
    event = b'{"type":"x"}'
    whole = len(event) + len(FIELD) + 1
    assert marked(event, TEXT, whole) != event
    assert marked(event, TEXT, whole - 1) == event


def test_the_field_passes_the_checks_of_events() -> None:
    event = JobProgress(job_id="42", status="processing", stage="x", progress=0.5, message="m").encode()
    assert check(marked(event, TEXT, 1000)) is None


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (b"{" + FIELD + b',"type":"x"}', (TRACE, SPAN)),
        (b'{"type":"x", "traceparent" : "%b"}' % TEXT.encode(), (TRACE, SPAN)),
        (b"\x01s:1:1:1 {" + FIELD + b"}", (TRACE, SPAN)),
        (b"{" + FIELD.replace(b"-01", b"-00") + b"}", None),
        (b'{"traceparent":"00-%032x-%016x-01"}' % (0, SPAN), None),
        (b'{"traceparent":"00-%032x-%016x-01"}' % (TRACE, 0), None),
        (b'{"traceparent":"nonsense"}', None),
        (b'{"type":"x"}', None),
    ],
)
def test_the_field_is_found_where_it_counts(event: bytes, found: tuple[int, int] | None) -> None:
    assert found_in(event) == found


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exported: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return Tracing(provider, 1000)


def facts_of(exported: InMemorySpanExporter) -> list[dict[str, Any]]:
    return [
        {"name": span.name, "status": span.status.status_code.name, **dict(span.attributes or {})}
        for span in exported.get_finished_spans()
    ]


def test_a_publish_continues_the_trace_of_its_request(tracing: Tracing, exported: InMemorySpanExporter) -> None:
    with tracing.publishing({"traceparent": TEXT}) as span:
        first, second, user = span.marked([Item("a:1", b"{}"), Item("a:1", b'{"x":1}'), Item(USERS_CHANNEL, b"{}")])
    (made,) = exported.get_finished_spans()
    assert made.parent is not None
    assert made.context is not None
    assert (made.context.trace_id, made.parent.span_id) == (TRACE, SPAN)
    assert found_in(first.payload) == found_in(second.payload) == (TRACE, made.context.span_id)
    assert user == Item(USERS_CHANNEL, b"{}")
    assert facts_of(exported) == [
        {"name": "publish", "status": "UNSET", "messaging.system": "broker", "messaging.batch.message_count": 3}
    ]


def test_a_publish_without_one_begins_a_trace_and_a_refused_one_says_why(
    tracing: Tracing, exported: InMemorySpanExporter
) -> None:
    with pytest.raises(RequestRefused), tracing.publishing({"traceparent": "nonsense"}) as span:
        span.marked([Item("a:1", b"{}")])
        raise RequestRefused(503, "Redis is away", "Try again.")
    (made,) = exported.get_finished_spans()
    assert made.parent is None
    assert made.status.description == "Redis is away"
    assert facts_of(exported) == [
        {
            "name": "publish",
            "status": "ERROR",
            "messaging.system": "broker",
            "messaging.batch.message_count": 1,
            "messaging.destination.name": "a:1",
            "error.type": "503",
        }
    ]


def test_a_dispatch_links_to_it_and_there_are_not_too_many(tracing: Tracing, exported: InMemorySpanExporter) -> None:
    traced = [b"message", b"app:a:1", b"{" + FIELD + b"}"]
    others = [[b"message", b"app:a:1", b"{}"], [b"message", b"app:b:1", traced[2]], [b"pong", b""], b"PONG"]
    heard: list[tuple[bytes, bool]] = []

    def is_heard(name: bytes, *, is_stamped: bool) -> bool:
        heard.append((name, is_stamped))
        return name == b"a:1"

    tracing.dispatched([*others, traced], 4, is_heard, 0.25)
    assert heard == [(b"b:1", False), (b"a:1", False)]
    (made,) = exported.get_finished_spans()
    assert made.parent is None
    assert [(link.context.trace_id, link.context.span_id) for link in made.links] == [(TRACE, SPAN)]
    assert made.end_time is not None
    assert made.start_time is not None
    assert made.end_time - made.start_time == 250_000_000
    assert facts_of(exported) == [
        {
            "name": "dispatch",
            "status": "UNSET",
            "messaging.system": "broker",
            "messaging.destination.name": "a:1",
        }
    ]
    tracing.dispatched([traced] * 1000, 4, is_heard, 0.0)
    assert len(exported.get_finished_spans()) <= 401  # two hundred in each of two seconds


async def test_off_is_nothing_and_on_needs_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tracing.from_settings(Section(), 1000) is None
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError) as refused:
        Tracing.from_settings(Section(mode="on"), 1000)
    assert str(refused.value) == (
        "tracing.mode: opentelemetry.sdk.trace is not installed; pip install 'broker[opentelemetry]', or set it to off"
    )


def test_from_a_request_to_the_collector(
    tmp_path: Path, redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    with open_collector() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        daemon = start_daemon(redis_server.url, "--tracing-mode", "on", environ=environ)
        # With history, and without.
        (client,) = open_websockets(daemon.port, 1, "job_progress:1", "metric:1")
        body = [{"channel": name, "event": {"type": "x"}} for name in ("job_progress:1", "metric:1")]
        request = urllib.request.Request(
            daemon.url + "/api/publish", json.dumps(body).encode(), {"traceparent": TEXT}, method="POST"
        )
        urllib.request.urlopen(request, timeout=5).close()
        pump([client], lambda: len(client.events("x")) == 2)
        wait_until(lambda: len(collector.named("dispatch")) == 2 and collector.named("publish"))
        (published,) = collector.named("publish")
        assert (published.trace_id.hex(), published.parent_span_id.hex()) == (f"{TRACE:032x}", f"{SPAN:016x}")
        own = f"00-{TRACE:032x}-{published.span_id.hex()}-01"
        assert client.events("x") == [{"traceparent": own, "type": "x"}] * 2
        linked = {(link.trace_id, link.span_id) for span in collector.named("dispatch") for link in span.links}
        assert linked == {(published.trace_id, published.span_id)}
        assert {key: collector.facts[key] for key in ("service.name", "service.version")} == {
            "service.name": "broker",
            "service.version": __version__,
        }
        # What is left goes out before the end.
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(daemon.url + "/api/publish", b"{", timeout=5)
        close_all()
        assert daemon.stop() == 0
        assert [span.status.message for span in collector.named("publish")][1:] != []


def test_a_collector_that_does_not_answer_holds_nobody_up(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    daemon = start_daemon(redis_server.url, "--tracing-mode", "on", "--daemon-drain-seconds", "1", environ=environ)
    body = json.dumps({"channel": "metric:1", "event": {"type": "x"}}).encode()
    for _ in range(20):
        urllib.request.urlopen(daemon.url + "/api/publish", body, timeout=5).close()
    assert daemon.stop(seconds=6.0) == 0
