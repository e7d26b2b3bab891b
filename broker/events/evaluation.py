"""What an evaluation's channel carries besides its steps: that it begins anew, and its end.

They are published by workers, on `council_score:<evaluation>` or `creative_evaluation:<evaluation>`; the
third of them, `error`, is in `session.py`. Source: the wire contract, "Evaluations".
"""

from __future__ import annotations

from typing import ClassVar

from broker.events.event import Event
from broker.events.rules import Name, Object
from broker.events.value import value_class


@value_class
class EvaluationRestarted(Event):
    """Another worker begins anew: what came before is void.

    Args:
        attempt: which taking this is; at least 2.
    """

    type: ClassVar[str] = "evaluation_restarted"

    evaluation_id: Name
    attempt: int
    message: str


@value_class
class Complete(Event):
    """The end of a stream that has one, with its result."""

    type: ClassVar[str] = "complete"

    data: Object
