"""Channel types: the options that each is served with, and the types that are built in.

Laws: a type that has a table in the settings is declared by it. An option that the table leaves out is
the built-in type's own; a type that is not built in, declared or not, has the defaults of `TypeOptions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from broker.config.setting import setting

HISTORY_LENGTH_MAX = 100_000


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
        "How many past events of each channel are kept, so that clients can resume; set history_seconds with it. "
        "0: none.",
        least=0,
        most=HISTORY_LENGTH_MAX,
    )
    history_seconds: float = setting(
        0.0, "How long they are kept after the channel's last event. 0: not at all.", least=0.0, most=366 * 86400.0
    )
    replay: int = setting(
        0,
        "How many past events a new subscriber gets at once, so that a late page shows the state. "
        "At most history_length.",
        least=0,
        most=HISTORY_LENGTH_MAX,
    )
    slow_clients: str = setting(
        "auto",
        "What becomes of a client that reads too slowly. disconnect: it is ended with code 4001. drop_oldest: it "
        "misses the oldest events, and a gap event says how many. latest: only the newest event of each channel "
        "waits for it. catch_up: it gets everything, from history, as fast as it reads. auto: catch_up where there "
        "is history, else disconnect.",
        one_of=("auto", "disconnect", "drop_oldest", "latest", "catch_up"),
    )

    second_part: str = setting(
        "id",
        "What the second part of a channel's name is where there are two: id, or user; user makes the channel that "
        "user's alone, as the third part always does.",
        one_of=("id", "user"),
    )

    @property
    def keeps_history(self) -> bool:
        """Either option being 0 turns history off, whatever the other is."""
        return self.history_length > 0 and self.history_seconds > 0

    @property
    def history_milliseconds(self) -> int:
        # Redis takes 0 for no time at all, where there may be some.
        return round(self.history_seconds * 1000) or int(self.history_seconds > 0)

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
        "alerts": TypeOptions(history_length=100, history_seconds=86400.0, second_part="user"),
        "live_metrics": TypeOptions(history_length=100, history_seconds=3600.0, replay=1),
        # Evaluations are kept in their ledger; what is published on these channels only says that there is more.
        "council_score": TypeOptions(),
        "creative_evaluation": TypeOptions(),
    }
)
"""The types of the wire contract, each with its own defaults."""
