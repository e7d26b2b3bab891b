"""What a subscription has counted."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen
class Statistics:
    """A snapshot; counts are since the subscription was entered.

    Args:
        events: taken by the consumer.
        waiting: events that the consumer has yet to take; not a count but how it is now.
        reconnects: connections that were live again after a loss.
        recovered: reconnects after which nothing was missing.
        gaps: gaps that were told, by reason.
    """

    events: int
    waiting: int
    reconnects: int
    recovered: int
    gaps: Mapping[str, int]
