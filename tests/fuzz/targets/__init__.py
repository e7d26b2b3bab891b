"""Everything that is fuzzed, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    answers,
    channels,
    commands,
    completions,
    cursors,
    forwarding,
    frames,
    heads,
    http2,
    keysets,
    orders,
    pages,
    payloads,
    proxyheaders,
    pushes,
    settings,
    submissions,
    tokens,
)

TARGETS: Mapping[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (
        heads,
        http2,
        frames,
        commands,
        channels,
        cursors,
        tokens,
        keysets,
        proxyheaders,
        forwarding,
        pushes,
        payloads,
        pages,
        orders,
        submissions,
        settings,
        completions,
        answers,
    )
}
