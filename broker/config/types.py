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


BUILT_IN_TYPES: Mapping[str, TypeOptions] = MappingProxyType(
    {
        "job_progress": TypeOptions(),
        "video_render": TypeOptions(),
        "ai_stream": TypeOptions(),
        "campaign_metrics": TypeOptions(),
        "ab_test_results": TypeOptions(),
        "alerts": TypeOptions(),
        "live_metrics": TypeOptions(),
        "council_score": TypeOptions(),
        "creative_evaluation": TypeOptions(),
    }
)
"""The types of the wire contract, each with its own defaults."""
