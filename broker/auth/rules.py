"""The rules: who may subscribe and publish where, and which rule says so.

In this order; the first that speaks decides:

    1. channels whose type is `broker` are the daemons' own: nobody may
    2. where authentication is off, everybody may subscribe
    3. a channel that belongs to a user: nobody else may subscribe to it
    4. the token's claim `subscribe` or `publish`, where it has one
    5. admin rights: may publish
    6. a channel that belongs to a user: of users and anonymous clients nobody else may publish on it
    7. the settings: `rules.user_*`, `rules.anonymous_*`, `rules.key_publish`

So a service publishes for users by its token's claim or by an API key; a rule for all users, such as `chat:*`, does
not let one write into what is another's.

Laws: what no rule allows is refused. A decision always names the rule, so that `broker explain`, the log and
the client are told the same. Synchronous; no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import define, frozen

from broker.auth.identity import ANONYMOUS, KEY, OPEN, USER, Identity
from broker.channel import Channel
from broker.config.access import Rules
from broker.config.types import TypeOptions
from broker.pattern import Pattern
from broker.request import RequestRefused, unauthorized

SUBSCRIBE = "subscribe"
PUBLISH = "publish"
RESERVED_TYPE = "broker"
USERS_TYPE = "user"  # what the rules call a user: `user:<id>`


@frozen
class Decision:
    """Whether something is allowed.

    Args:
        rule: what decided, such as `rules.user_subscribe` or `claim subscribe`.
        why: a sentence for whoever asks.
    """

    allowed: bool
    rule: str
    why: str


@define(eq=False)
class RuleBook:
    """The rules as the settings have them."""

    _rules: Rules
    _types: Mapping[str, TypeOptions]

    def adapt(self, rules: Rules) -> None:
        """Go by other rules from here on."""
        self._rules = rules

    def owner_of(self, channel: Channel) -> str | None:
        """The user to whom a channel belongs; None where to nobody."""
        parts = channel.parts
        if len(parts) == 3:
            return parts[2]
        options = self._types.get(parts[0])
        if len(parts) == 2 and (parts[0] == USERS_TYPE or (options is not None and options.second_part == "user")):
            return parts[1]
        return None

    def decide(self, identity: Identity, action: str, channel: Channel) -> Decision:
        """Whether somebody may subscribe to or publish on a channel. Raises nothing."""
        if channel.type == RESERVED_TYPE:
            return Decision(False, "reserved", f"channels of type {RESERVED_TYPE} are the daemons' own")
        if action == SUBSCRIBE:
            if identity.kind == OPEN:
                return Decision(True, "open", "authentication is off")
            refused = self._ownership(identity, channel)
            if refused is not None:
                return refused
        elif self._only_looks_owned(identity, channel):
            return Decision(
                False,
                "owner",
                f'anybody may call it {channel.name} and read it; give it an id too, or set second_part = "user" for '
                f"the type {channel.type}",
            )
        claimed = identity.subscribe if action == SUBSCRIBE else identity.publish
        if claimed is not None:
            return _by_patterns(f"claim {action}", claimed, identity, channel, f"the token's claim {action}")
        if identity.is_admin and action == PUBLISH:
            return Decision(True, "admin", "whoever may use the admin calls may publish")
        name = self._setting(identity, action)
        if name is None:
            return Decision(False, "api key", "an API key does not subscribe; use a token")
        if action == PUBLISH and identity.kind != KEY:
            refused = self._ownership(identity, channel)
            if refused is not None:
                return refused
        return _by_patterns(f"rules.{name}", getattr(self._rules, name), identity, channel, f"the setting rules.{name}")

    def _ownership(self, identity: Identity, channel: Channel) -> Decision | None:
        """Refused, where the channel is somebody else's."""
        if channel.user_id is not None and channel.user_id != identity.user_id:
            # Also where the name does not say so: `{"type": "x", "userId": "ann"}` is named `x:ann`.
            return Decision(
                False, "owner", f"the channel is said to be of user {channel.user_id}, who is somebody else"
            )
        owner = self.owner_of(channel)
        if owner is None or owner == identity.user_id:
            return None
        return Decision(False, "owner", f"the channel belongs to user {owner} alone")

    def _only_looks_owned(self, identity: Identity, channel: Channel) -> bool:
        """Whether somebody means a user's channel by `{"type", "userId"}`, whose name does not say so."""
        return identity.kind != OPEN and channel.user_id is not None and self.owner_of(channel) != channel.user_id

    def _setting(self, identity: Identity, action: str) -> str | None:
        if identity.kind == KEY:
            return "key_publish" if action == PUBLISH else None
        who = "user" if identity.kind == USER else "anonymous"
        return f"{who}_{action}"


def check_rights(rules: RuleBook, identity: Identity, channels: Iterable[Channel]) -> None:
    """Raises RequestRefused where somebody may not subscribe to all of the channels: 401 without a token, else 403."""
    for channel in channels:
        decision = rules.decide(identity, SUBSCRIBE, channel)
        if not decision.allowed:
            detail = f"{channel.name} is not for you: {decision.why}"
            if identity.kind == ANONYMOUS:
                raise unauthorized(detail)
            raise RequestRefused(
                403,
                detail,
                "Ask for a token that may; GET /api/realtime/explain says which rule decides.",
                channel=channel.name,
            )


def _by_patterns(rule: str, patterns: Sequence[str], identity: Identity, channel: Channel, said: str) -> Decision:
    names = channel.parts
    for text in patterns:
        try:
            matches = Pattern.parse(text).matches_parts(names, identity.user_id)
        except ValueError:
            continue  # a token's pattern that means nothing
        if matches:
            return Decision(True, rule, f"{said} has {text}")
    # A token's texts may be anything; what is said goes to logs and to the client.
    listed = ", ".join(ascii(text)[1:-1] for text in patterns[:10]) + (", ..." if len(patterns) > 10 else "")
    return Decision(False, rule, f"{said} has no pattern for it ({listed or 'none at all'})")
