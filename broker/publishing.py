"""Publishing for clients: what they submit over HTTP and WebSocket goes to Redis, once.

All events are one step in Redis, which keeps those of channels with history; with an Idempotency-Key the memory of
them is part of it: whoever repeats the request, to whichever daemon, gets the first answer and nothing is published
again. Where Redis does not let the daemon run scripts, events without a key are published plain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from typing import Any

from attrs import Factory, define, field

from broker.auth.identity import ANONYMOUS, OPEN, Identity
from broker.auth.rules import PUBLISH, RESERVED_TYPE, RuleBook
from broker.channel import Channel
from broker.command import Commands
from broker.config.sections import Config
from broker.errors import UpstreamError, UpstreamRefused
from broker.history.call import bounds_of, publish_all
from broker.history.keys import Keys
from broker.request import RequestRefused, unauthorized
from broker.submission import Item, Origin, checked_key, item_of, submission_of
from broker.tracing import Tracing


@define(eq=False)
class Publishing:
    """What `POST /api/publish` does, and the intake of WebSocket clients. Counts since the start, in `statistics`."""

    _commands: Commands
    _config: Config
    _rules: RuleBook
    _tracing: Tracing | None = None
    _keys: Keys = field(init=False)
    _bounds: Mapping[str, str] = field(init=False)
    _counts: Counter[str] = Factory(Counter)
    _refused: Counter[str] = Factory(Counter)

    def __attrs_post_init__(self) -> None:
        self._keys = Keys(self._config.redis.channel_prefix)
        self._bounds = bounds_of(self._config.types)

    def adapt(self, config: Config) -> None:
        """Go by other settings from here on; what Redis is used for must be as before."""
        self._config = config

    async def publish(
        self, identity: Identity, origin: Origin, body: bytes, idempotency_key: str | None
    ) -> tuple[int, bool]:
        """Publish a submission. Returns how many events Redis took, and whether that was before, for the same key.

        Raises:
            RequestRefused: nothing was published (or, with 502 and 503, as the detail says).
        """
        self._counts["requests"] += 1
        try:
            if self._tracing is None:
                return await self._publish(identity, origin, body, idempotency_key)
            with self._tracing.publishing(origin.headers) as span:
                return await self._publish(identity, origin, body, idempotency_key, span.marked)
        except RequestRefused as refused:
            self._refused[str(refused.status)] += 1
            raise

    def statistics(self) -> Mapping[str, Any]:
        """Requests and events that were taken, repeats that were recognised, refusals by status."""
        counts = {name: self._counts[name] for name in ("requests", "events", "repeated")}
        return {**counts, "refused": dict(self._refused)}

    def item_of(self, channel: Channel, payload: bytes) -> Item:
        """An event, checked as the settings ask for.

        Raises:
            RequestRefused: what is wrong with it.
        """
        config = self._config
        return item_of(
            channel,
            payload,
            config.declared_types,
            config.channels.undeclared == "serve",
            config.channels.message_max_bytes,
        )

    async def publish_items(self, items: list[Item]) -> list[str | None]:
        """Publish events as one step. Returns for each None, or why Redis refused it.

        Raises:
            RequestRefused: 503; whether any was published is not known.
        """
        call = publish_all(
            self._keys, items, bounds=self._bounds, position_ms=round(self._config.history.position_seconds * 1000)
        )
        prefix = self._config.redis.channel_prefix
        try:
            try:
                _, _, _, answers, *_ = await self._commands.run(call.script, call.keys, *call.arguments)
            except UpstreamRefused:
                answers = await self._commands.execute(
                    *(("PUBLISH", prefix + item.channel, item.payload) for item in items)
                )
        except UpstreamError as error:
            raise _away(error) from None
        refused = [str(each) if isinstance(each, Exception) else _text(each) for each in answers]
        self._counts["events"] += refused.count(None)
        return refused

    async def _publish(
        self,
        identity: Identity,
        origin: Origin,
        body: bytes,
        idempotency_key: str | None,
        marked: Callable[[list[Item]], list[Item]] = lambda items: items,
    ) -> tuple[int, bool]:
        config = self._config
        if config.publish.http == "off":
            raise RequestRefused(403, "publishing over HTTP is off", "Publish through Redis, or set publish.http.")
        if identity.kind == OPEN or config.publish.http == "loopback":
            origin.check(config.listen.allowed_origins)
        if identity.kind == ANONYMOUS:
            raise unauthorized("publishing over HTTP needs a token or an API key")
        key = checked_key(idempotency_key)
        items = submission_of(
            body,
            types=config.declared_types,
            serves_undeclared=config.channels.undeclared == "serve",
            events_max=config.publish.events_max,
            message_max_bytes=config.channels.message_max_bytes,
            objection=partial(self._objection, identity),
        )
        items = marked(items)
        try:
            repeated, taken, why = await self._publish_all(identity, items, key, body)
        except UpstreamError as error:
            raise _away(error) from None
        self._counts["repeated" if repeated else "events"] += 1 if repeated else taken
        if taken < len(items):
            raise RequestRefused(
                502, f"Redis took {taken} of {len(items)} events: {why}", "Ask whoever runs Redis for the right."
            )
        return taken, repeated

    def _objection(self, identity: Identity, channel: Channel) -> str | None:
        if identity.kind == OPEN and channel.type != RESERVED_TYPE:
            return None
        decision = self._rules.decide(identity, PUBLISH, channel)
        return None if decision.allowed else decision.why

    async def _publish_all(
        self, identity: Identity, items: list[Item], key: str | None, body: bytes
    ) -> tuple[bool, int, str]:
        config = self._config
        call = publish_all(
            self._keys,
            items,
            bounds=self._bounds,
            position_ms=round(config.history.position_seconds * 1000),
            memory=None if key is None else self._memory(identity, key),
            digest=sha256(body).hexdigest(),
            memory_ms=round(config.publish.idempotency_seconds * 1000),
        )
        try:
            before, taken, why, *rest = await self._commands.run(call.script, call.keys, *call.arguments)
        except UpstreamRefused as refused:
            if key is not None:
                raise RequestRefused(
                    502,
                    f"Redis cannot remember an Idempotency-Key: {refused}",
                    "Ask whoever runs Redis for the right, or publish without the key.",
                ) from None
            return await self._publish_plain(items, 0)
        if before < 0:
            raise RequestRefused(
                422, "this Idempotency-Key was used for another request", "Send a new key for new events."
            )
        if key is None and taken < len(items):
            # What the script may not do, PUBLISH alone perhaps may.
            (answers, *_) = rest
            refused_items = [item for item, answer in zip(items, answers, strict=True) if isinstance(answer, bytes)]
            return await self._publish_plain(refused_items, taken)
        return bool(before), taken, why.decode(errors="replace")

    async def _publish_plain(self, items: list[Item], taken: int) -> tuple[bool, int, str]:
        """What the script did not take, behind the `taken` others; the recorder keeps it."""
        prefix = self._config.redis.channel_prefix
        replies = await self._commands.execute(*(("PUBLISH", prefix + item.channel, item.payload) for item in items))
        errors = [str(reply) for reply in replies if isinstance(reply, Exception)]
        return False, taken + len(items) - len(errors), errors[0] if errors else ""

    def _memory(self, identity: Identity, key: str) -> str:
        """Where Redis remembers a key: each publisher has its own, or one could use up another's."""
        whose = "" if identity.kind == OPEN else f"{identity.kind}\0{identity.user_id or identity.name}\0"
        return f"{self._config.redis.channel_prefix}broker:idempotency:{sha256((whose + key).encode()).hexdigest()}"


def _away(error: UpstreamError) -> RequestRefused:
    return RequestRefused(
        503,
        f"Redis did not confirm: {error}",
        "Try again; with an Idempotency-Key nothing is published twice.",
        {"Retry-After": "1"},
    )


def _text(answer: object) -> str | None:
    """What the script says of one event: how many received it, or why Redis refused it."""
    return answer.decode(errors="replace") if isinstance(answer, bytes) else None
