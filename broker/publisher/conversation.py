"""What is said to Redis to publish a batch, and what its answers mean. Sans-I/O.

One event is one script call, and of a batch each chunk is: the events of channels with history are kept, and
published with their positions. A chunk waits for the answer to the one before, so that no event overtakes
another: where Redis does not know the script (any more), nothing of the chunk ran, and it goes again, whole.

Where Redis does not let this user run the script or use the keys of history, nothing ran either, and a plain
PUBLISH follows, which the daemon's recorder keeps; once that was taken, the pool asks for no script any more.
With an idempotency key there is no plain PUBLISH: nobody would remember it. What is for a user is never asked of
a script: it is a plain PUBLISH to the daemons.

Bounds: a chunk has `CHUNK_EVENTS` events and `CHUNK_BYTES`, or one event: so long is Redis held up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from attrs import define, field

from broker.command import Argument
from broker.history.call import Call, publish, publish_all
from broker.history.keys import Keys
from broker.publisher.exchange import Breakdown, Outcome, Refusal
from broker.publisher.publication import Publication

CHUNK_EVENTS = 200
CHUNK_BYTES = 256 * 1024
IDEMPOTENCY_MS = 300_000


@define(eq=False)
class Scripting:
    """Whether the Redis of a pool is known to refuse scripts to this user."""

    is_refused: bool = False


@define(eq=False)
class Conversation:
    """About one batch, over one connection: send what `ask` returns and give `hear` each reply, until `ask` is empty.

    `answers` grows with each event that is settled, in the order of the batch.
    """

    _keys: Keys
    _batch: Sequence[Publication]
    _scripting: Scripting
    answers: list[int | Refusal] = field(init=False, factory=list)
    _unkept: int = field(init=False, default=0)
    _why_unkept: str = field(init=False, default="")
    # Why the script was refused, where a plain PUBLISH was taken after it.
    _why_plain: str = field(init=False, default="")
    # The chunk at hand, what is known of each of its events, and which of them are asked for by plain PUBLISH.
    _chunk: Sequence[Publication] = field(init=False, default=())
    _found: list[int | Refusal | None] = field(init=False, factory=list)
    _settled: int = field(init=False, default=0)
    _plain: deque[int] = field(init=False, factory=deque)
    _is_unknown: bool = field(init=False, default=False)
    _denied: str = field(init=False, default="")

    def ask(self) -> list[tuple[Argument, ...]]:
        """The commands to send now, in one write."""
        if not self._chunk:
            self._begin_chunk()
        if not self._chunk:
            return []
        if self._plain:
            prefix = self._keys.channel_prefix
            events = [self._chunk[place] for place in self._plain]
            return [("PUBLISH", prefix + event.channel, event.message) for event in events]
        call = self._call()
        return [call.whole() if self._is_unknown else call.by_digest()]

    def hear(self, reply: Any) -> None:
        """One reply, in the order of the commands.

        Raises:
            ValueError, TypeError: it is none of theirs.
        """
        if self._plain:
            self._take_plain(self._plain.popleft(), reply)
        elif not isinstance(reply, Refusal):
            self._take(reply)
        elif reply.is_unknown_script and not self._is_unknown:
            self._is_unknown = True
        elif reply.is_denial and self._chunk[0].idempotency_key is None:
            self._denied = reply.text
            self._plain.extend(range(len(self._chunk)))
        else:
            self._found = [reply] * len(self._chunk)
        self._settle()

    def outcome(self, breakdown: Breakdown | None = None) -> Outcome:
        """What it came to, so far."""
        return Outcome(self.answers, breakdown, self._unkept, self._why_unkept, self._why_plain)

    def _begin_chunk(self) -> None:
        left = self._batch[len(self.answers) :]
        is_plain = bool(left) and (
            left[0].user is not None or (self._scripting.is_refused and left[0].idempotency_key is None)
        )
        self._chunk = left if is_plain else left[: _fitting(left)]
        self._found = [None] * len(self._chunk)
        self._settled = 0
        self._plain = deque(range(len(self._chunk)) if is_plain else ())
        self._is_unknown, self._denied = False, ""

    def _call(self) -> Call:
        if len(self._chunk) > 1:
            return publish_all(self._keys, self._chunk)
        (event,) = self._chunk
        return publish(self._keys, event, event.idempotency_key, IDEMPOTENCY_MS)

    def _take(self, reply: Any) -> None:
        """The answer of a script."""
        if len(self._chunk) == 1:
            receivers, why = reply if isinstance(reply, list) else (reply, b"")
            found: list[Any] = [receivers]
            unkept = 1 if why else 0
        else:
            _, _, _, found, unkept, why = reply
        if len(found) != len(self._chunk):
            raise ValueError(f"{len(found)} answers to {len(self._chunk)} events")
        if unkept:
            self._unkept += int(unkept)
            self._why_unkept = why.decode(errors="replace")
        for place, answer in enumerate(found):
            if isinstance(answer, bytes):
                self._denied = answer.decode(errors="replace")
                self._plain.append(place)
            else:
                self._found[place] = int(answer)

    def _take_plain(self, place: int, reply: Any) -> None:
        self._found[place] = reply if isinstance(reply, Refusal) else int(reply)
        if self._denied and not isinstance(reply, Refusal):
            self._why_plain = self._denied
            self._scripting.is_refused = True

    def _settle(self) -> None:
        """Answer what is known, up to the first that is not."""
        while self._settled < len(self._found) and (answer := self._found[self._settled]) is not None:
            self.answers.append(answer)
            self._settled += 1
        if self._settled == len(self._chunk):
            self._chunk = ()


def _fitting(events: Sequence[Publication]) -> int:
    """How many of the first events make a chunk."""
    sizes = accumulate(len(event.payload) for event in events[:CHUNK_EVENTS])
    return max(1, sum(size <= CHUNK_BYTES for size in sizes)) if events else 0
