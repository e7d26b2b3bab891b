"""Alerts, and what a person can do about one.

Source: the wire contract, "Events".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from broker.events.event import Event
from broker.events.value import Value, value_class


@value_class
class AlertAction(Value):
    """A button under an alert."""

    label: str
    action: str
    url: str | None = None


@value_class
class Alert(Event):
    """Something that a person should know.

    Args:
        alert_id: the event's `id`, if not given.

    Its channel is `alerts`, which everybody may hear; for one user publish it to `alerts:<userId>` by name.
    """

    type: ClassVar[str] = "alert"
    channel_type: ClassVar[str | None] = "alerts"
    id_stem: ClassVar[str | None] = "alert"

    alert_id: str = ""
    severity: Literal["info", "warning", "critical"]
    category: Literal["performance", "budget", "technical", "policy"]
    title: str
    message: str
    entity_id: str | None = None
    entity_type: str | None = None
    action_required: bool
    actions: Sequence[AlertAction] | None = None

    def _fill(self) -> None:
        super()._fill()
        if not self.alert_id:
            object.__setattr__(self, "alert_id", self.id)
