"""Publishing over HTTP: one request with one event or a list of them. Source: the wire contract, "Base: HTTP"."""

from __future__ import annotations

from broker.events.asyncapi.channel import ChannelObject, OperationObject, http_operation


def http_publishing() -> ChannelObject:
    """`POST /api/publish` and its answers."""
    return ChannelObject(
        "publish_http",
        "/api/publish",
        ("http",),
        (
            OperationObject(
                "send_publish_http", "send", ("Submission",), ("SubmissionTaken", "Refusal"), http_operation("POST")
            ),
        ),
        "With a token or an API key that may publish there; without authentication, from the daemon's own machine "
        "only. All events are checked before any is published.",
    )
