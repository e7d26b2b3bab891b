"""The oracle: what one client noted about one channel goes in, and what was not as promised comes out.

The promise: a client gets every event of a channel exactly once and in order, and where that cannot be, a gap
event says so, where the hole is. What is published says who published it (its voice) and counts up from 1, so a
hole shows twice: in the positions, and in the numbers, which also clients without positions have.

A gap explains only what it says: behind it the positions go on from its `to`; and what was published with a
stamp may be missing only where the positions jump, as `recorder_changed` is about plain PUBLISHes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import Factory, define, field, frozen

STAMPED = "stamped"
PLAIN = "plain"

# The recorder may change a few times without an event in between.
REPETITIONS_MAX = 20

Heard = tuple[str, int]
"""The voice, and its number."""


@frozen
class Begun:
    """The channel is live on a connection.

    Args:
        position: where it begins; None where the client is told none.
        since: where the client said it was; None for one that comes for the first time, empty for one that
            comes back and cannot say.
        recovered: what the answer said about that; None where it says nothing.
        published: how many events each voice had published by then; later ones must arrive.
    """

    position: str | None
    since: str | None = None
    recovered: bool | None = None
    published: Mapping[str, int] = field(factory=dict)


@frozen
class Event:
    position: str | None
    heard: Heard


@frozen
class Told:
    """A gap event."""

    reason: str
    begin: str | None
    end: str | None
    count: int | None = None


Entry = Begun | Event | Told


@define(eq=False)
class Truth:
    """What is known of one channel over all its clients.

    Args:
        published: how many events each voice has published, or is about to.
        at: which event was at a position.
    """

    published: dict[str, int] = Factory(dict)
    at: dict[str, Heard] = Factory(dict)

    def is_so(self, position: str, heard: Heard) -> bool:
        """Whether everybody had the same event at a position."""
        return self.at.setdefault(position, heard) == heard


@define(eq=False)
class Record:
    """What one client notes about one channel, judged as it is noted.

    Args:
        faults: what was not as promised, a sentence each.
    """

    truth: Truth = Factory(Truth)
    entries: list[Entry] = Factory(list)
    faults: list[str] = Factory(list)
    _walk: _Walk = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._walk = _Walk(self.truth)

    def note(self, entry: Entry) -> None:
        self.entries.append(entry)
        for what in self._walk.step(entry):
            self.faults.append(f"entry {len(self.entries)}, {entry}: {what}")

    def faults_at_end(self) -> list[str]:
        """As `faults`, of a client that has to have by now everything that was published."""
        return [*self.faults, *self._walk.end(self.truth.published)]

    def gaps(self) -> list[Told]:
        return [entry for entry in self.entries if isinstance(entry, Told)]


@define(eq=False)
class _Voice:
    """The last number heard. `is_open`: the next may be any later one.

    What was published up to `before` was there before the client came: it may be replayed, and may be missing.
    """

    last: int = 0
    before: int = 0
    is_open: bool = False


@define(eq=False)
class _Walk:
    truth: Truth
    at: str | None = None
    must_tell: str | None = None  # what has yet to be followed by a gap
    promised_gap: str | None = None
    voices: dict[str, _Voice] = Factory(dict)
    last_told: Told | None = None
    repetitions: int = 0

    def step(self, entry: Entry) -> Iterator[str]:
        if self.must_tell is not None and not isinstance(entry, Told | Begun):
            yield f"not told: {self.must_tell}"
        if isinstance(entry, Begun):
            yield from self._begin(entry)
        elif isinstance(entry, Event):
            self.must_tell = None
            yield from self._hear(entry)
        else:
            self.must_tell = self.promised_gap = None
            yield from self._be_told(entry)

    def end(self, published: Mapping[str, int]) -> Iterator[str]:
        if self.must_tell or self.promised_gap:
            yield f"at the end, not told: {self.must_tell or self.promised_gap}"
        for name, count in list(published.items()):
            voice = self._voice(name)
            if not voice.is_open and max(voice.last, voice.before) < count:
                yield f"at the end, lost and not told: {name} {max(voice.last, voice.before) + 1} to {count}"

    def _begin(self, entry: Begun) -> Iterator[str]:
        self.must_tell = self.promised_gap = None
        if entry.since is None:
            self.at = entry.position
            self.voices = {name: _Voice(before=count) for name, count in entry.published.items()}
            return
        if not entry.since:
            self.must_tell = "what was published while it was away is not known"
        elif entry.position != entry.since:
            if entry.recovered:
                yield "recovered, and yet not from where the client was"
            self.must_tell = f"it begins at {entry.position} and not at {entry.since}"
        if entry.recovered is False:
            self.promised_gap = "recovered was false"
        if self.at is not None and entry.since and entry.since != self.at:
            yield f"the client lost its place: it was at {self.at}"

    def _hear(self, entry: Event) -> Iterator[str]:
        if entry.position is not None:
            if self.at is not None:
                yield from self._follow(entry.position, self.at)
            if not self.truth.is_so(entry.position, entry.heard):
                yield f"others had {self.truth.at[entry.position]} there"
        # Who is told positions only in gaps is told no place by them.
        self.at = entry.position
        name, number = entry.heard
        voice = self._voice(name)
        due = max(voice.last, voice.before) + 1
        if number <= voice.last:
            yield f"doubled or out of order: {name} {number} after {voice.last}"
        elif number > due and not voice.is_open:
            yield f"lost: {name} {due} to {number - 1}"
        voice.last, voice.is_open = number, False

    def _follow(self, position: str, before: str) -> Iterator[str]:
        epoch, offset, _ = position.split(":")
        at_epoch, at_offset, _ = before.split(":")
        if epoch != at_epoch:
            yield f"another epoch after {before}, not told"
        elif int(offset) <= int(at_offset):
            yield f"doubled or out of order: {position} after {before}"
        elif int(offset) > int(at_offset) + 1:
            yield f"lost: {int(offset) - int(at_offset) - 1} events after {before}, not told"

    def _be_told(self, entry: Told) -> Iterator[str]:
        self.repetitions = self.repetitions + 1 if entry == self.last_told else 0
        self.last_told = entry
        if self.repetitions == REPETITIONS_MAX:
            yield "told again and again"
        if entry.begin is not None and self.at is not None and not _is_same(entry.begin, self.at):
            yield f"the gap begins at {entry.begin}, the client was at {self.at}"
        jumps = entry.begin is None or entry.end is None or entry.begin != entry.end
        if entry.count is not None and entry.begin is not None and entry.end is not None:
            between = int(entry.end.split(":")[1]) - int(entry.begin.split(":")[1])
            if between != entry.count:
                yield f"the gap counts {entry.count} events, its positions {between}"
        for name in {STAMPED, PLAIN, *self.voices}:
            if jumps or name == PLAIN:
                self._voice(name).is_open = True
        # Where it does not say how far it goes, anything may follow.
        self.at = entry.end

    def _voice(self, name: str) -> _Voice:
        if name not in self.voices:
            self.voices[name] = _Voice()
        return self.voices[name]


def _is_same(one: str, other: str) -> bool:
    """Whether two positions are the same place; the tag 0 is any."""
    *here, tag = one.split(":")
    *there, other_tag = other.split(":")
    return here == there and (tag == other_tag or "0" in (tag, other_tag))
