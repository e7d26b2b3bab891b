"""An explanation: what somebody may, by which rule and why, for `broker explain` and `GET /api/realtime/explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.auth.identity import Identity
from broker.auth.rules import RuleBook
from broker.channel import Channel
from broker.timestamp import timestamp

_YEAR_10000 = 253402300800.0


def explanation(rules: RuleBook, identity: Identity, action: str, channel: Channel) -> Mapping[str, Any]:
    """Shape: `allowed`, `action`, `channel`, `rule`, `why`, and `identity` with what the daemon knows of who asks."""
    decision = rules.decide(identity, action, channel)
    return {
        "allowed": decision.allowed,
        "action": action,
        "channel": channel.name,
        "rule": decision.rule,
        "why": decision.why,
        "owner": rules.owner_of(channel),
        "identity": {"kind": identity.kind, "name": identity.name, **about(identity)},
    }


def about(identity: Identity) -> dict[str, Any]:
    """What a client is told of its own token."""
    over = identity.expires_at
    expires_at = None if over is None or over >= _YEAR_10000 else timestamp(over)
    return {"userId": identity.user_id, "expiresAt": expires_at}
