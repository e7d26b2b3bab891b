"""Channel types: the options that each is served with, and the types that are built in.

Laws: a type that has a table in the settings is declared by it. An option that the table leaves out is
the built-in type's own; a type that is not built in, declared or not, has the defaults of `TypeOptions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from broker.config.setting import setting


@frozen
class TypeOptions:
    """What each channel type is served with. A table declares its type; a key that it leaves out has its default."""

    validate: str = setting(
        "json",
        "What an event from Redis is checked for: off, its size and UTF-8 only; json, also that it is JSON; "
        "event, also that it is an event with the fields of its type. What fails is dropped and counted.",
        one_of=("off", "json", "event"),
    )
    history_length: int = setting(
        0,
        "Events that are kept of each channel, so that clients can resume. 0, together with history_seconds: none.",
        least=0,
        most=100_000,
    )
    history_seconds: float = setting(
        0.0, "How long a channel's events are kept after its last one.", least=0.0, most=366 * 86400.0
    )
    replay: int = setting(
        0, "How many past events a new subscriber gets, so that a late page shows the state at once.", least=0
    )
    slow_clients: str = setting(
        "auto",
        "What becomes of a client that reads too slowly: disconnect, with code 4001; drop_oldest, and a gap event says "
        "how many; latest, only the newest event of each channel waits; catch_up, it is served from history as it "
        "reads. auto: catch_up where there is history, else disconnect.",
        one_of=("auto", "disconnect", "drop_oldest", "latest", "catch_up"),
    )

    @property
    def keeps_history(self) -> bool:
        return self.history_length > 0

    @property
    def history_milliseconds(self) -> int:
        return round(self.history_seconds * 1000)

    @property
    def slow_policy(self) -> str:
        """`slow_clients`, with `auto` decided."""
        if self.slow_clients != "auto":
            return self.slow_clients
        return "catch_up" if self.keeps_history else "disconnect"


BUILT_IN_TYPES: Mapping[str, TypeOptions] = MappingProxyType(
    {
        "job_progress": TypeOptions(history_length=100, history_seconds=3600.0, replay=1),
        "video_render": TypeOptions(history_length=100, history_seconds=3600.0, replay=1),
        "ai_stream": TypeOptions(history_length=1000, history_seconds=900.0),
        "campaign_metrics": TypeOptions(history_length=100, history_seconds=3600.0, replay=1),
        "ab_test_results": TypeOptions(history_length=100, history_seconds=3600.0, replay=1),
        "alerts": TypeOptions(history_length=100, history_seconds=86400.0),
        "live_metrics": TypeOptions(history_length=100, history_seconds=3600.0, replay=1),
        # Evaluations are kept in their ledger; what is published on these channels only says that there is more.
        "council_score": TypeOptions(),
        "creative_evaluation": TypeOptions(),
    }
)
"""The types of the wire contract, each with its own defaults."""
