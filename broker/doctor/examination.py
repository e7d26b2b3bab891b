"""The examination: every check in its order, each under its own deadline, and what is left out.

A check that fails stops no other, except where it makes the others pointless: where nothing can be
connected to, where clients need a token and there is none that counts, where a transport that failed would have
to carry the round trip, and where evaluations need the Redis that is away.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable

import httpx
import trio
from attrs import Factory, define

from broker.doctor.access import NoEntry, check_authentication, check_origin, check_tls
from broker.doctor.conversation import Conversation
from broker.doctor.diagnosis import CONNECTION_ERRORS, diagnosis
from broker.doctor.finding import CheckFailed, CheckSkipped, Finding
from broker.doctor.publisher import HttpPublisher, Publisher
from broker.doctor.roundtrip import Listener, RoundTrip, listen_stream, listen_websocket
from broker.doctor.target import Target
from broker.doctor.web import BUFFERING_ADVICE, Degraded, StreamCheck, check_health, check_stats, open_client

WEBSOCKET_CHECKS = ("websocket", "ws subscribe", "ws ping", "ws close")
_MISSING = "Missing required parameters: "

Check = Callable[[], Awaitable[str]]
Tell = Callable[[Finding], None]


async def examine(target: Target, *, publisher: Publisher | None, seconds: float, tell: Tell) -> None:
    """Try everything, and tell each finding as it comes.

    Args:
        publisher: carries the round trip's events; None for the daemon's own HTTP.
        seconds: the deadline of each check.

    Raises: nothing of its own.
    """
    async with open_client(target, seconds) as client:
        await Examination(target, client, publisher or HttpPublisher(client, target.headers), seconds, tell).run()


@define(eq=False)
class Examination:
    """One examination. `run` it once."""

    _target: Target
    _client: httpx.AsyncClient
    _publisher: Publisher
    _seconds: float
    _tell: Tell
    _is_subscribed: bool | None = None  # over WebSocket; None where there was no WebSocket to try it on
    _is_degraded: bool = False
    _is_let_in: bool = True
    _passed: set[str] = Factory(set)

    async def run(self) -> None:
        streams = self._streams()
        if not await self._check("connect", self._connect):
            self._skip_all(("tls", "health", "origin", "authentication"), "the daemon cannot be reached")
            self._skip_all(self._of_clients(streams), "the daemon cannot be reached")
            return
        await self._check("tls", lambda: check_tls(self._target))
        if await self._check("health", lambda: check_health(self._client)):
            await self._check("origin", lambda: check_origin(self._client))
            await self._check("authentication", self._authentication)
        else:
            self._skip_all(("origin", "authentication"), "see what health says")
        if not self._is_let_in:
            self._skip_all(self._of_clients(streams), "see what authentication says")
            return
        await self._check("stats", self._stats)
        await self._converse()
        await self._watch(streams)
        await self._travel()

    async def _connect(self) -> str:
        stream = await self._target.dial()
        await trio.aclose_forcefully(stream)
        return self._target.url

    async def _authentication(self) -> str:
        try:
            return await check_authentication(self._client, self._target)
        except NoEntry:
            self._is_let_in = False
            raise

    async def _stats(self) -> str:
        try:
            return await check_stats(self._client, self._target)
        except Degraded:
            self._is_degraded = True
            raise

    async def _converse(self) -> None:
        """What a WebSocket client does, on one connection."""
        conversations: list[Conversation] = []

        async def connect() -> str:
            conversations.append(await Conversation.open(self._target))
            first = await conversations[0].hear_message("connected")
            return f"connected as {first.get('clientId')}"

        if not await self._check("websocket", connect):
            for name in WEBSOCKET_CHECKS[1:]:
                self._skip(name, "there is no WebSocket")
            for conversation in conversations:
                await conversation.cut()
            return
        (conversation,) = conversations

        async def subscribe() -> str:
            self._is_subscribed = False
            await conversation.subscribe(f"job_progress:{_doctor_id()}")
            self._is_subscribed = True
            return "subscribed"

        async def ping() -> str:
            await conversation.say({"type": "ping"})
            await conversation.hear_message("pong")
            return "pong"

        async def close() -> str:
            return f"closed with code {await conversation.close()}"

        try:
            await self._check("ws subscribe", subscribe, _late_subscribe)
            await self._check("ws ping", ping)
            await self._check("ws close", close)
        finally:
            await conversation.cut()

    def _streams(self) -> dict[str, StreamCheck]:
        id = _doctor_id()
        paths = {
            "stream": f"/api/stream?channel=job_progress:{id}",
            "render-progress": f"/api/stream/render-progress/{id}",
            "campaign-metrics": f"/api/stream/campaign-metrics/{id}",
            "ab-test-results": f"/api/stream/ab-test-results/{id}",
        }
        streams = {f"sse {name}": StreamCheck(self._target, path) for name, path in paths.items()}
        # Without parameters they are refused, in a stream: no evaluation is begun.
        for name in ("council-score", "evaluate-creative"):
            streams[f"sse {name}"] = StreamCheck(self._target, f"/api/stream/{name}", _MISSING)
        return streams

    async def _watch(self, streams: dict[str, StreamCheck]) -> None:
        """All streams at once, so that waiting for the deadline is done once."""
        findings: dict[str, Finding] = {}

        async def watch(name: str, check: StreamCheck) -> None:
            if check.refusal and self._is_degraded:
                # It would refuse all the same, and look well.
                findings[name] = Finding(name, "skip", "evaluations need Redis; see what stats says")
            else:
                findings[name] = await self._finding(name, check.run, lambda: self._late_stream(check))

        async with trio.open_nursery() as nursery:
            for name, check in streams.items():
                nursery.start_soon(watch, name, check)
        for name in streams:
            self._take(findings[name])

    async def _travel(self) -> None:
        listeners = {
            "ws events": Listener("ws events", listen_websocket) if "ws subscribe" in self._passed else None,
            "sse events": Listener("sse events", listen_stream) if "sse stream" in self._passed else None,
        }
        present = tuple(listener for listener in listeners.values() if listener is not None)
        if not present:
            self._skip("publish", "nobody could be subscribed")
        trip = RoundTrip(self._target, self._publisher, self._seconds, present)
        # It has deadlines of its own for each step.
        published = bool(present) and await self._check("publish", trip.run, seconds=float("inf"))
        for name, listener in listeners.items():
            if listener is None:
                self._skip(name, "it could not be subscribed")
            elif not published:
                self._skip(name, "nothing was published")
            else:
                self._take(_judged(name, trip, listener))

    def _late_stream(self, check: StreamCheck) -> CheckFailed:
        """Why no first event came in time: what did come, and what the WebSocket saw, tells daemon, proxy and Redis."""
        if check.refusal or (not check.has_head and "health" not in self._passed):
            # A refusal ends at once, and with the end comes whatever is held back. Without any answer at all it
            # is the daemon that is stopped or stuck, as the head of a stream waits for nothing.
            return _late(self._seconds)
        if not check.has_head:
            return CheckFailed(
                f"no answer within {self._seconds:g} s, not even its head, though /health is answered",
                f"look into the daemon's log; a proxy may hold back heads too: {BUFFERING_ADVICE}",
            )
        text = f"no first event within {self._seconds:g} s"
        if self._is_subscribed:
            return CheckFailed(
                f"{text}, though a WebSocket is subscribed: something in between buffers the stream", BUFFERING_ADVICE
            )
        if self._is_subscribed is None:
            return CheckFailed(
                f"{text}: something in between buffers the stream, or Redis does not answer",
                f"{BUFFERING_ADVICE}; see what stats says of Redis",
            )
        return CheckFailed(f"{text}: Redis does not confirm the subscription", "see whether Redis answers")

    async def _check(
        self, name: str, check: Check, late: Callable[[], CheckFailed] | None = None, *, seconds: float | None = None
    ) -> bool:
        """Run a check and tell what it found. Returns whether it passed."""
        finding = await self._finding(name, check, late, seconds=seconds)
        self._take(finding)
        return finding.verdict == "ok"

    async def _finding(
        self, name: str, check: Check, late: Callable[[], CheckFailed] | None, *, seconds: float | None = None
    ) -> Finding:
        deadline = self._seconds if seconds is None else seconds
        began = trio.current_time()
        try:
            with trio.fail_after(deadline):
                text = await check()
            if deadline == float("inf"):
                return Finding(name, "ok", text)
            took = (trio.current_time() - began) * 1000
            return Finding(name, "ok", f"{text}, {took:.0f} ms", milliseconds=took)
        except CheckSkipped as skipped:
            return Finding(name, "skip", str(skipped))
        except CheckFailed as error:
            failed = error
        except (trio.TooSlowError, httpx.TimeoutException):
            failed = late() if late is not None else _late(deadline)
        except CONNECTION_ERRORS as error:
            failed = diagnosis(error)
        return Finding(name, "fail", failed.text, failed.advice)

    def _take(self, finding: Finding) -> None:
        if finding.verdict == "ok":
            self._passed.add(finding.check)
        self._tell(finding)

    @staticmethod
    def _of_clients(streams: Iterable[str]) -> tuple[str, ...]:
        """The checks that need what clients need."""
        return ("stats", *WEBSOCKET_CHECKS, *streams, "publish", "ws events", "sse events")

    def _skip_all(self, names: Iterable[str], why: str) -> None:
        for name in names:
            self._skip(name, why)

    def _skip(self, name: str, why: str) -> None:
        self._tell(Finding(name, "skip", why))


def _judged(name: str, trip: RoundTrip, listener: Listener) -> Finding:
    try:
        return trip.judge(listener)
    except CheckFailed as failed:
        return Finding(name, "fail", failed.text, failed.advice)


def _late(seconds: float) -> CheckFailed:
    return CheckFailed(
        f"no answer within {seconds:g} s",
        "see whether the daemon is stopped or stuck (its log); if it is only slow, raise --timeout-seconds",
    )


def _late_subscribe() -> CheckFailed:
    return CheckFailed(
        "Redis does not confirm the subscription", "see whether Redis answers: redis-cli PING; stats says it soon"
    )


def _doctor_id() -> str:
    return f"doctor_{os.urandom(8).hex()}"
