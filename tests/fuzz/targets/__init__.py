"""Everything that is fuzzed, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    channels,
    commands,
    cursors,
    forwarding,
    frames,
    heads,
    payloads,
    proxyheaders,
    settings,
    submissions,
    tokens,
)

TARGETS: Mapping[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (
        heads,
        frames,
        commands,
        channels,
        cursors,
        tokens,
        proxyheaders,
        forwarding,
        payloads,
        submissions,
        settings,
    )
}
