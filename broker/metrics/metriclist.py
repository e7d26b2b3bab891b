"""Every metric: its name, kind, meaning, and where its value is found in a scrape.

Laws: a name ends in its unit, in base units (seconds, bytes), and a counter in `_total`. No label has a value that
comes from a client, a channel or a user; every label's values are known beforehand, or bounded by who counts them.
`docs/metrics.md` has this table; a test holds the two together.

Source: Prometheus, "Metric and label naming", "Writing client libraries" (the names of the process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from broker.ending import ENDINGS, OUTBOX_FULL, OUTBOX_STALE
from broker.gap import REASONS
from broker.histogram import Histogram
from broker.inquiry import KINDS
from broker.message import BAD_STAMP, NOT_AN_EVENT, NOT_JSON, NOT_UTF8, TOO_BIG
from broker.metrics.scrape import Scrape

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

_UNDELIVERABLE = (TOO_BIG, NOT_UTF8, NOT_JSON, NOT_AN_EVENT, BAD_STAMP)

Values = float | Histogram | Mapping[str, float] | None


@frozen
class Metric:
    """One metric.

    Args:
        draw: a number or a histogram; with a label numbers by its values; None where there is none.
        label: the name of its label; empty for none.
    """

    name: str
    kind: str
    meaning: str
    draw: Callable[[Scrape], Values]
    label: str = ""

    @property
    def unit(self) -> str:
        stem = self.name.removesuffix("_total")
        return next((unit for unit in ("seconds", "bytes") if stem.endswith(f"_{unit}")), "")


def _counter(name: str, meaning: str, draw: Callable[[Scrape], Values], label: str = "") -> Metric:
    return Metric(f"{name}_total", COUNTER, meaning, draw, label)


def _gauge(name: str, meaning: str, draw: Callable[[Scrape], Values], label: str = "") -> Metric:
    return Metric(name, GAUGE, meaning, draw, label)


def _histogram(name: str, meaning: str, draw: Callable[[Scrape], Values]) -> Metric:
    return Metric(f"{name}_seconds", HISTOGRAM, meaning, draw)


def _with_zeros(names: tuple[str, ...], found: Mapping[str, float]) -> Mapping[str, float]:
    """Also what has not happened yet: a counter that begins at 1 has no rate."""
    return {**dict.fromkeys(names, 0), **found}


_DAEMON = (
    _gauge("broker_build_info", "1, labelled with the version of the daemon.", lambda at: at.build, "version"),
    _gauge("broker_ready", "1 while new clients are welcome, as /readyz says; else 0.", lambda at: at.is_ready),
    _gauge("broker_tasks", "Tasks of the event loop, counted every 5 seconds.", lambda at: at.tasks),
    _histogram(
        "broker_loop_lag",
        "How late a task wakes that asked to be woken; up to 1 ms is none.",
        lambda at: at.lag.histogram,
    ),
    _gauge("broker_loop_lag_max_seconds", "The latest that it woke in the last minute.", lambda at: at.lag_max_seconds),
)
_CONNECTIONS = (
    _gauge("broker_clients", "Clients that receive events, by transport.", lambda at: at.clients, "transport"),
    _gauge("broker_connections", "Connections of every kind, streams of HTTP/2 too.", lambda at: at.door.connections),
    _gauge("broker_connections_max", "As many as there may be.", lambda at: at.sources.door.max_connections),
    _counter("broker_connections_accepted", "Connections that were accepted.", lambda at: at.door.accepted),
    _counter(
        "broker_connections_refused",
        "Connections, and requests through proxies, that were refused, by reason.",
        lambda at: at.refused,
        "reason",
    ),
    _counter(
        "broker_connections_failed", "Connections that ended with an error in the log.", lambda at: at.door.failed
    ),
    _counter(
        "broker_requests_refused",
        "Requests that were refused, by the status of the answer.",
        lambda at: at.reception.refused_by_status,
        "status",
    ),
    _counter(
        "broker_endings",
        "Clients that have left, by how (docs/endings.md); cancelled: cut off by a restart.",
        lambda at: _with_zeros((*(each.name for each in ENDINGS), "cancelled"), at.endings),
        "ending",
    ),
    _counter(
        "broker_limits_hit", "How often a limit was reached, by the name of its setting.", lambda at: at.limits, "limit"
    ),
)
_DELIVERY = (
    _counter("broker_events", "Events that were handed on, each counted once.", lambda at: at.books.messages),
    _counter(
        "broker_deliveries",
        "Events times the clients that they were handed to, by transport.",
        lambda at: at.deliveries,
        "transport",
    ),
    _counter(
        "broker_delivered_bytes",
        "Bytes of these on the wire, before TLS, by transport.",
        lambda at: at.delivered_bytes,
        "transport",
    ),
    _histogram(
        "broker_dispatch",
        "What came in one read from Redis: from when it was read until all was handed on.",
        lambda at: at.link.dispatching,
    ),
    _histogram(
        "broker_encode",
        "Making a wire format of what came for a channel; of each read one is timed.",
        lambda at: at.books.encoding.histogram,
    ),
    _histogram(
        "broker_flush",
        "From when bytes of a client had to wait for it until the kernel had taken all.",
        lambda at: at.pool.flushing,
    ),
    _histogram(
        "broker_event_age",
        "From the timestamp of an event until it was handed on; at most 20 a second are "
        "looked at. By the clocks of two machines.",
        lambda at: at.event_age.histogram,
    ),
    _counter(
        "broker_event_age_skipped",
        "Events that were looked at for their age and have none: the timestamp is ahead "
        "of our clock, over an hour old, or unknown.",
        lambda at: _with_zeros(("ahead", "old", "unknown"), at.event_age.skipped),
        "reason",
    ),
    _counter(
        "broker_gaps",
        "Gaps that clients were told of, by reason (docs/delivery.md).",
        lambda at: _with_zeros(tuple(REASONS), at.books.gaps),
        "reason",
    ),
    _gauge("broker_channels", "Channels that somebody listens to.", lambda at: at.hub.channel_count()),
    _gauge("broker_subscriptions", "Clients times their channels.", lambda at: at.hub.subscriptions),
    _gauge(
        "broker_slow_clients",
        "Clients for which something waits that their kernel did not take.",
        lambda at: at.pool.waiting,
    ),
    _counter(
        "broker_overflows",
        "How often a client was too slow for a channel, by the policy that then applied; disconnect ended it.",
        lambda at: _overflows(at),
        "policy",
    ),
    _counter("broker_skipped_events", "Events that the policy latest left out.", lambda at: at.books.skipped),
    _counter("broker_dropped_events", "Events that the policy drop_oldest dropped.", lambda at: at.books.dropped),
    _gauge("broker_outbox_bytes", "Bytes that wait for clients to read them.", lambda at: at.outboxes.queued_bytes),
    _gauge("broker_outbox_peak_bytes", "The most that ever waited.", lambda at: at.outboxes.peak_bytes),
    _gauge("broker_outbox_max_bytes", "As many as may wait: limits.outbox_total_bytes.", lambda at: at.pool.max_bytes),
)
_REDIS = (
    _gauge(
        "broker_redis_connected",
        "1 while Redis delivers every channel that is wanted; else 0.",
        lambda at: not at.link.is_away,
    ),
    _counter("broker_redis_outages", "How often Redis was lost.", lambda at: at.link.outages),
    _counter(
        "broker_redis_away_seconds",
        "Time without Redis, until it was there first too.",
        lambda at: at.link.away_seconds(at.now),
    ),
    _histogram(
        "broker_redis_answer",
        "From a PING until its answer was read, behind all that had come before it.",
        lambda at: at.link.answering,
    ),
    _gauge(
        "broker_redis_lag_seconds", "The last of these; none before the first.", lambda at: at.link.answered_in_seconds
    ),
    _gauge(
        "broker_redis_subscriptions",
        "Channels that Redis is asked for, also those that nobody listens to any more for a moment.",
        lambda at: at.link.channels,
    ),
    _counter("broker_redis_messages", "Messages from Redis.", lambda at: at.link.messages),
    _counter(
        "broker_redis_messages_refused",
        "Messages from Redis that were dropped, by reason.",
        lambda at: _with_zeros(_UNDELIVERABLE, at.refused_messages),
        "reason",
    ),
)
_PUBLISHING = (
    _counter("broker_publish_requests", "Requests to publish over HTTP.", lambda at: at.publishing["requests"]),
    _counter(
        "broker_published_events",
        "Events that clients published over HTTP and WebSocket.",
        lambda at: at.publishing["events"],
    ),
    _counter(
        "broker_publish_repeated",
        "Requests that were repeated with their Idempotency-Key.",
        lambda at: at.publishing["repeated"],
    ),
    _counter(
        "broker_publish_refused",
        "Requests to publish that were refused, by the status of the answer.",
        lambda at: at.publishing["refused"],
        "status",
    ),
)
_HISTORY = (
    _counter("broker_history_reads", "Pages of history that were read.", lambda at: at.history["reads"]),
    _counter(
        "broker_history_shared_reads", "Pages that were asked for and shared.", lambda at: at.history["sharedReads"]
    ),
    _gauge(
        "broker_recorder",
        "1 while this process records what is published plainly; one of all daemons does.",
        lambda at: at.recorder["isRecorder"],
    ),
    _counter("broker_recorder_terms", "How often it began to record.", lambda at: at.recorder["generationsBegun"]),
    _counter("broker_recorded_events", "Events that it recorded.", lambda at: at.recorder["recorded"]),
    _counter(
        "broker_unkept_events",
        "Events that it published without keeping them, as Redis took no writes.",
        lambda at: at.recorder["unkept"],
    ),
    _counter(
        "broker_unknown_events",
        "Events of which it is not known whether they were recorded.",
        lambda at: at.recorder["unknown"],
    ),
    _gauge(
        "broker_recorder_refused",
        "1 while Redis does not let it record; else 0.",
        lambda at: at.recorder["refusedWhy"] is not None,
    ),
)
_EVALUATIONS = (
    _counter(
        "broker_evaluations_started",
        "Evaluations that were started, by kind.",
        lambda at: _with_zeros(KINDS, at.evaluations["started"]),
        "kind",
    ),
    _counter(
        "broker_evaluations_refused",
        "Evaluations that were refused as too many were pending, by kind.",
        lambda at: _with_zeros(KINDS, at.evaluations["refusedPending"]),
        "kind",
    ),
)
_ACCESS = (
    _counter(
        "broker_tokens_refused",
        "Tokens and keys that did not count, by reason.",
        lambda at: at.gate["refused"],
        "reason",
    ),
    _gauge("broker_token_keys", "Keys that tokens may be signed with.", lambda at: at.gate["keys"]["keys"]),
    _counter(
        "broker_token_keys_failures", "How often the JWK set could not be read.", lambda at: at.gate["keys"]["failures"]
    ),
    _gauge("broker_revocations", "Revoked tokens and users.", lambda at: at.gate["revoked"], "kind"),
    _counter(
        "broker_clients_disconnected", "Clients that the operator disconnected.", lambda at: at.control["disconnected"]
    ),
    _counter("broker_clients_revoked", "Clients whose token was revoked.", lambda at: at.control["revoked"]),
    _counter("broker_user_events", "Events for users that came.", lambda at: at.control["userEvents"]),
    _counter(
        "broker_user_deliveries",
        "Events for users times the clients that they were handed to.",
        lambda at: at.control["userDeliveries"],
    ),
)
_TLS = (
    _gauge(
        "broker_tls_certificate_expires_timestamp_seconds",
        "When the certificate is over, in seconds since 1970.",
        lambda at: None if at.certificate is None else at.certificate.expires_at,
    ),
    _counter(
        "broker_tls_certificate_reloads",
        "How often it was read anew.",
        lambda at: None if at.certificate is None else at.certificate.reloads,
    ),
    _counter(
        "broker_tls_certificate_failures",
        "How often it could not be read anew.",
        lambda at: None if at.certificate is None else at.certificate.failed_reloads,
    ),
    _gauge(
        "broker_http2_connections", "HTTP/2 connections.", lambda at: None if at.http2 is None else at.http2.connections
    ),
    _gauge("broker_http2_streams", "Their streams.", lambda at: None if at.http2 is None else at.http2.streams),
    _counter(
        "broker_http2_streams_served",
        "Streams that were served.",
        lambda at: None if at.http2 is None else at.http2.streams_served,
    ),
    _counter(
        "broker_http2_floods",
        "Connections that were ended because they asked for too much.",
        lambda at: None if at.http2 is None else at.http2.ended_for_flood,
    ),
)
_PROCESS = (
    _counter(
        "process_cpu_seconds", "CPU of this process, in user mode and in the kernel.", lambda at: at.process.cpu_seconds
    ),
    _gauge("process_resident_memory_bytes", "Memory in RAM.", lambda at: at.process.resident_bytes),
    _gauge("process_open_fds", "Open file descriptors.", lambda at: at.process.open_descriptors),
    _gauge("process_max_fds", "As many as there may be.", lambda at: at.process.max_descriptors),
    _gauge(
        "process_start_time_seconds", "When it was started, in seconds since 1970.", lambda at: at.process.started_at
    ),
)

GROUPS: Mapping[str, tuple[Metric, ...]] = {
    "The daemon": _DAEMON,
    "Connections": _CONNECTIONS,
    "Delivery": _DELIVERY,
    "Redis": _REDIS,
    "Publishing over HTTP and WebSocket": _PUBLISHING,
    "History and the recorder": _HISTORY,
    "Evaluations": _EVALUATIONS,
    "Access": _ACCESS,
    "TLS and HTTP/2": _TLS,
    "The process": _PROCESS,
}
"""By what they are about, in the order of `docs/metrics.md`."""
METRICS: tuple[Metric, ...] = tuple(metric for group in GROUPS.values() for metric in group)


def _overflows(at: Scrape) -> Mapping[str, float]:
    ended = at.endings.get(OUTBOX_FULL.name, 0) + at.endings.get(OUTBOX_STALE.name, 0)
    return {"disconnect": ended, **_with_zeros(("latest", "drop_oldest", "catch_up"), at.books.fell_behind)}


def table() -> Iterator[str]:
    """The lines of the table in `docs/metrics.md`."""
    for title, metrics in GROUPS.items():
        yield f"## {title}"
        yield ""
        yield "| Metric | Kind | Unit | Label | Meaning |"
        yield "| --- | --- | --- | --- | --- |"
        for each in metrics:
            label = f"`{each.label}`" if each.label else ""
            yield f"| `{each.name}` | {each.kind} | {each.unit} | {label} | {each.meaning} |"
        yield ""
