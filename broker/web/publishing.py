"""Publishing over HTTP: a submission goes to Redis, once.

With an Idempotency-Key the events and the memory of them are one step in Redis: whoever repeats the
request, to whichever daemon, gets the first answer and nothing is published again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from attrs import Factory, define

from broker.command import Commands, Script
from broker.config.sections import Config
from broker.errors import UpstreamError
from broker.request import RequestRefused
from broker.submission import Item, Origin, checked_key, submission_of

# KEYS: the memory. ARGV: digest of the body, ms to remember, then channel and event of each.
# Returns whether it was published before (-1: something else was), how many Redis took, and why not all.
# The memory is written first: where Redis takes no writes (full, a replica, its disk), nothing is published either.
_PUBLISH_ONCE = Script("""
local seen = redis.call('HMGET', KEYS[1], 'digest', 'taken', 'why')
if seen[1] == ARGV[1] then return {1, tonumber(seen[2]), seen[3] or ''} end
if seen[1] then return {-1, 0, ''} end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'taken', 0, 'why', '')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local taken, why = 0, ''
for index = 3, #ARGV, 2 do
    local reply = redis.pcall('PUBLISH', ARGV[index], ARGV[index + 1])
    if type(reply) == 'number' then taken = taken + 1 else why = reply['err'] end
end
if taken > 0 then
    redis.call('HSET', KEYS[1], 'taken', taken, 'why', why)
else
    redis.call('DEL', KEYS[1])
end
return {0, taken, why}
""")


@define(eq=False)
class Publishing:
    """What `POST /api/publish` does. Counts since the start, in `statistics`."""

    _commands: Commands
    _config: Config
    _counts: Counter[str] = Factory(Counter)
    _refused: Counter[str] = Factory(Counter)

    async def publish(self, origin: Origin, body: bytes, idempotency_key: str | None) -> tuple[int, bool]:
        """Publish a submission. Returns how many events Redis took, and whether that was before, for the same key.

        Raises:
            RequestRefused: nothing was published (or, with 502 and 503, as the detail says).
        """
        self._counts["requests"] += 1
        try:
            return await self._publish(origin, body, idempotency_key)
        except RequestRefused as refused:
            self._refused[str(refused.status)] += 1
            raise

    def statistics(self) -> Mapping[str, Any]:
        """Requests and events that were taken, repeats that were recognised, refusals by status."""
        counts = {name: self._counts[name] for name in ("requests", "events", "repeated")}
        return {**counts, "refused": dict(self._refused)}

    async def _publish(self, origin: Origin, body: bytes, idempotency_key: str | None) -> tuple[int, bool]:
        config = self._config
        if config.publish.http == "off":
            raise RequestRefused(403, "publishing over HTTP is off", "Publish through Redis, or set publish.http.")
        origin.check(config.listen.cors_origins)
        key = checked_key(idempotency_key)
        items = submission_of(
            body,
            types=config.declared_types,
            serves_undeclared=config.channels.undeclared == "serve",
            events_max=config.publish.events_max,
            message_max_bytes=config.channels.message_max_bytes,
        )
        try:
            repeated, taken, why = await (
                self._publish_all(items) if key is None else self._publish_once(items, key, body)
            )
        except UpstreamError as error:
            raise RequestRefused(
                503,
                f"Redis did not confirm: {error}",
                "Try again; with an Idempotency-Key nothing is published twice.",
                {"Retry-After": "1"},
            ) from None
        self._counts["repeated" if repeated else "events"] += 1 if repeated else taken
        if taken < len(items):
            raise RequestRefused(
                502, f"Redis took {taken} of {len(items)} events: {why}", "Ask whoever runs Redis for the right."
            )
        return taken, repeated

    async def _publish_all(self, items: list[Item]) -> tuple[bool, int, str]:
        prefix = self._config.redis.channel_prefix
        replies = await self._commands.execute(*(("PUBLISH", prefix + item.channel, item.payload) for item in items))
        errors = [str(reply) for reply in replies if isinstance(reply, Exception)]
        return False, len(items) - len(errors), errors[0] if errors else ""

    async def _publish_once(self, items: list[Item], key: str, body: bytes) -> tuple[bool, int, str]:
        prefix = self._config.redis.channel_prefix
        memory = f"{prefix}broker:idempotency:{sha256(key.encode()).hexdigest()}"
        milliseconds = round(self._config.publish.idempotency_seconds * 1000)
        events = (part for item in items for part in (prefix + item.channel, item.payload))
        before, taken, why = await self._commands.run(
            _PUBLISH_ONCE, (memory,), sha256(body).hexdigest(), milliseconds, *events
        )
        if before < 0:
            raise RequestRefused(
                422, "this Idempotency-Key was used for another request", "Send a new key for new events."
            )
        return bool(before), taken, why.decode(errors="replace")
