"""The survey: one question to every daemon at this Redis, and their answers.

    <prefix>broker:control       {"do": "ask", "question": ..., "from": <node>, "to": <node> or null, "what", "with"}
    <prefix>broker:node:<node>   {"question": ..., "node": <who has answered>}

The question goes to all through the control channel. Each puts its answer into a key of its own, which lasts
`_KEPT_SECONDS`, and rings at the asker's channel: so a large answer waits in Redis, and does not stand in the way of
events. Where no other daemon is known, nothing is asked.

Laws: there is an answer within `ANSWER_SECONDS`, of whoever has answered by then; who has not is named. A daemon
answers one question after the other, in a task of its own. Whoever asks what is being asked already gets that answer.
Bounds: `_ASKING_MAX` questions of ours are out, others wait; `_QUESTIONS_MAX` of others wait, more are not answered;
answers of `_ANSWER_MAX_BYTES`.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
import trio
from attrs import Factory, define, field, frozen

from broker.command import Argument, Commands
from broker.control import CONTROL_CHANNEL, Control
from broker.errors import UpstreamError
from broker.node import NodeRecord, entry, record_from_redis
from broker.nodes.membership import Membership
from broker.request import RequestRefused

ANSWER_SECONDS = 1.0

_ASK = "ask"
_KEPT_SECONDS = 5.0
_ASKING_MAX = 2
_QUESTIONS_MAX = 100
_ANSWER_MAX_BYTES = 16 * 1024 * 1024

Respond = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

log = structlog.get_logger(__name__)


class _Question(msgspec.Struct, rename={"asker": "from", "options": "with"}):
    question: str
    asker: str
    what: str
    options: dict[str, Any]
    to: str | None = None


class _Ring(msgspec.Struct):
    question: str
    node: str


class _Answer(msgspec.Struct):
    """What a node wrote: the answer and its record, or why there is none."""

    record: NodeRecord
    answer: dict[str, Any] | None = None
    why: str | None = None


_decode_question = msgspec.json.Decoder(_Question).decode
_decode_ring = msgspec.json.Decoder(_Ring).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


@frozen
class Findings:
    """What a survey found.

    Args:
        answers: this daemon's own first, where it was asked.
        nodes: all that are known, as the answers to `GET /api/realtime/...` list them.
    """

    answers: Sequence[Mapping[str, Any]]
    nodes: Sequence[Mapping[str, Any]]


@define(eq=False)
class _Asked:
    """A question of ours that is out."""

    missing: set[str]
    records: dict[str, NodeRecord | None] = Factory(dict)  # what each said of itself before
    answered: dict[str, _Answer] = Factory(dict)
    rung: list[str] = Factory(list)
    due: trio.Event = Factory(trio.Event)


@define(eq=False)
class _Asking:
    """Somebody asks; `findings` or `refused` is what came of it, unless he was cancelled."""

    is_over: trio.Event = Factory(trio.Event)
    findings: Findings | None = None
    refused: RequestRefused | None = None


@define(eq=False)
class Survey:
    """Asks, and answers.

    Args:
        commands: not those of the lease: an answer may be large.
        respond: what this daemon answers, by what is asked. May wait, not for long.
    """

    _membership: Membership
    _control: Control
    _commands: Commands
    _respond: Mapping[str, Respond]
    _asked: dict[str, _Asked] = field(init=False, factory=dict)
    _asking: dict[tuple[str, bytes, str | None], _Asking] = field(init=False, factory=dict)
    _limiter: trio.CapacityLimiter = field(init=False, factory=lambda: trio.CapacityLimiter(_ASKING_MAX))
    _questions: trio.MemorySendChannel[_Question] = field(init=False)
    _to_answer: trio.MemoryReceiveChannel[_Question] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._questions, self._to_answer = trio.open_memory_channel[_Question](_QUESTIONS_MAX)
        self._control.orders[_ASK] = self._heard_question
        self._control.ears[self._membership.keys.channel(self._membership.node)] = self._heard_ring

    async def serve(self) -> None:
        """Answer what others ask. Runs until cancelled."""
        async for question in self._to_answer:
            try:
                await self._answer(question)
            except UpstreamError as error:
                log.info("an answer for another node was lost", why=str(error))

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody else to ask."""
        return not self._membership.others

    async def ask(self, what: str, options: Mapping[str, Any], node: str | None) -> Findings:
        """Ask all daemons, or one.

        Args:
            what: a key of `respond`.
            options: JSON.
            node: the id of the one; None for all.

        Raises:
            RequestRefused: 404, there is no such node; 503, it is the only one that was asked, and did not answer.
        """
        if self.is_alone:
            return await self._ask_all(what, options, node)
        key = what, msgspec.json.encode(options, order="sorted"), node
        while (other := self._asking.get(key)) is not None:
            await other.is_over.wait()
            if other.refused is not None:
                raise other.refused
            if other.findings is not None:
                return other.findings
        asking = self._asking[key] = _Asking()
        try:
            async with self._limiter:
                asking.findings = await self._ask_all(what, options, node)
            return asking.findings
        except RequestRefused as refused:
            asking.refused = refused
            raise
        finally:
            del self._asking[key]
            asking.is_over.set()

    async def _ask_all(self, what: str, options: Mapping[str, Any], node: str | None) -> Findings:
        membership = self._membership
        others = membership.others
        if node is not None and node != membership.node and node not in others:
            raise self._no_such(node)
        here = node in (None, membership.node)
        wanted = (others if here else {node}) if node != membership.node else set()
        asked = _Asked({other for other in wanted if other is not None})
        own: list[Mapping[str, Any]] = []
        why: str | None = None
        async with trio.open_nursery() as nursery:
            if asked.missing:
                nursery.start_soon(self._ask, asked, what, options, node)
            if here:
                own.append(await self._respond[what](options))
        found = [each.answer for each in asked.answered.values() if each.answer is not None]
        if node is not None and not here and not found:
            why = next((each.why for each in asked.answered.values() if each.why), None)
            raise RequestRefused(
                503,
                f"node {node} "
                + (f"could not answer: {why}" if why else f"did not answer within {ANSWER_SECONDS:g} s"),
                "Try again; if it stays so, look at that daemon.",
                {"Retry-After": "1"},
            )
        return Findings([*own, *found], self._nodes(asked, here, node))

    async def _ask(self, asked: _Asked, what: str, options: Mapping[str, Any], to: str | None) -> None:
        """Ask, and take what is answered in time."""
        membership = self._membership
        question = secrets.token_hex(8)
        self._asked[question] = asked
        order = {"do": _ASK, "question": question, "from": membership.node, "to": to, "what": what, "with": options}
        try:
            with trio.move_on_after(ANSWER_SECONDS):
                nodes = sorted(asked.missing)
                said, _ = await self._commands.execute(
                    ("HMGET", membership.keys.records, *nodes),
                    ("PUBLISH", membership.keys.prefix + CONTROL_CHANNEL, msgspec.json.encode(order)),
                )
                if isinstance(said, list):
                    asked.records.update(zip(nodes, map(record_from_redis, said), strict=True))
                while asked.missing:
                    await asked.due.wait()
                    asked.due = trio.Event()
                    await self._fetch(asked, question)
        except UpstreamError as error:
            log.info("other nodes could not be asked", why=str(error))
        finally:
            del self._asked[question]

    async def _fetch(self, asked: _Asked, question: str) -> None:
        """Read the answers that are there."""
        nodes, asked.rung = asked.rung, []
        names = [self._membership.keys.answer(question, node) for node in nodes]
        reads: list[tuple[Argument, ...]] = [("GET", name) for name in names]
        *found, _ = await self._commands.execute(*reads, ("DEL", *names))
        for node, data in zip(nodes, found, strict=True):
            asked.missing.discard(node)
            if isinstance(data, bytes):
                try:
                    asked.answered[node] = _decode_answer(data)
                except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                    asked.answered[node] = _Answer(NodeRecord(), None, f"its answer is not understood: {error}")
                await trio.lowlevel.checkpoint()

    def _nodes(self, asked: _Asked, here: bool, node: str | None) -> list[Mapping[str, Any]]:
        """Every node, and whether it has answered."""
        membership = self._membership
        found: list[Mapping[str, Any]] = []
        if here:
            why = membership.why_alone
            shown = None if why is None else f"the other nodes are not asked, as Redis is away: {why}"
            found.append(entry(membership.node, membership.describe(), answered=True, why=shown))
        found += [
            entry(id, answer.record, answered=answer.answer is not None, why=answer.why)
            for id, answer in asked.answered.items()
        ]
        silent = sorted(asked.missing)
        away = sorted(membership.known) if membership.why_alone is not None and node is None else []
        away = [id for id in away if id not in asked.answered and id not in asked.missing]
        found += [
            entry(id, asked.records.get(id), answered=False, why=f"no answer within {ANSWER_SECONDS:g} s")
            for id in silent
        ]
        found += [entry(id, None, answered=False, why="not asked, as Redis is away") for id in away]
        return found

    def _heard_ring(self, message: bytes) -> None:
        """There is an answer. Synchronous."""
        ring = _decode_ring(message)
        asked = self._asked.get(ring.question)
        if asked is not None:
            asked.rung.append(ring.node)
            asked.due.set()

    def _heard_question(self, message: bytes) -> None:
        """Somebody asks. Synchronous."""
        question = _decode_question(message)
        node = self._membership.node
        if question.asker == node or question.to not in (None, node):
            return
        try:
            self._questions.send_nowait(question)
        except trio.WouldBlock:
            log.warning("too many questions of other nodes wait; one is not answered", asker=question.asker)

    async def _answer(self, question: _Question) -> None:
        membership = self._membership
        answer = _Answer(membership.describe())
        respond = self._respond.get(question.what)
        if respond is None:
            answer.why = f"its version does not know what {question.what} is"
        else:
            try:
                answer.answer = dict(await respond(question.options))
            except Exception:
                log.exception("a question of another node could not be answered", what=question.what)
                answer.why = "it failed; see its log"
        data = msgspec.json.encode(answer)
        if len(data) > _ANSWER_MAX_BYTES:
            data = msgspec.json.encode(_Answer(answer.record, None, f"its answer has {len(data)} bytes; ask for less"))
        keys = membership.keys
        await self._commands.execute(
            ("SET", keys.answer(question.question, keys.node), data, "PX", round(_KEPT_SECONDS * 1000)),
            (
                "PUBLISH",
                keys.prefix + keys.channel(question.asker),
                msgspec.json.encode(_Ring(question.question, keys.node)),
            ),
        )

    def _no_such(self, node: str) -> RequestRefused:
        membership = self._membership
        known = ", ".join(sorted({membership.node, *membership.others}))
        why = "" if membership.why_alone is None else f", as Redis is away ({membership.why_alone})"
        return RequestRefused(404, f"there is no node {ascii(node)[1:-1][:200]}{why}", f"Ask for one of: {known}")
