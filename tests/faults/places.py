"""The functions that the daemon calls for one client: where row 22 has one raise, and how its client has to end."""

from __future__ import annotations

import json

from attrs import frozen

from tests.access.visitor import token
from tests.actors.raw_client import BINARY, CLOSE, frame, text
from tests.actors.tampered import VICTIM

CLOSED, ANSWERED, TOLD, CUT_OFF = "closed with 1011", "answered 500", "told and ended", "cut off"
KEPT, PLAIN = ("kept:1", "kept:2"), "plain:1"
SLOW_BYTES = 60_000
# What Redis lets the daemon listen to: not `forbidden`.
ALLOWED = ("kept", "plain", "fresh", "slow", "broker", "video_render", "council_score")


@frozen
class Place:
    """One function that raises.

    Args:
        name: as `Tampered.raising` has it.
        path: what the victim asks for; `/ws` is a WebSocket.
        says: what it sends over it.
        end: how it has to end.
        body: of a POST; None for GET.
        gets: a channel on which something is published once the victim is there, and what.
        is_known: it says at once who it is, and not only by `authenticate`.
        is_slow: it reads nothing until what is published waits for it.
        is_shared: somebody else of its user is there, behind it, who has to get what is published all the same.
    """

    name: str
    path: str = "/ws"
    says: tuple[bytes, ...] = ()
    end: str = CLOSED
    body: bytes | None = None
    gets: tuple[str, tuple[bytes, ...]] | None = None
    is_known: bool = True
    is_slow: bool = False
    is_shared: bool = False

    @property
    def has_no_client(self) -> bool:
        """Whether it raises before there is one, whom the log could name."""
        return self.end == ANSWERED or self.name == ANY_REQUEST


def _subscribe(channel: str) -> tuple[bytes, ...]:
    return (text({"type": "subscribe", "channel": channel}),)


def _too_much(channel: str) -> tuple[str, tuple[bytes, ...]]:
    return channel, (b'"%b"' % (b"x" * SLOW_BYTES),) * 100


AUTHENTICATE = text({"type": "authenticate", "token": token(VICTIM, seconds=3600)})
PUBLISH = text({"type": "publish", "channel": "plain:2", "event": {"type": "x"}})
UNSUBSCRIBE = text({"type": "unsubscribe", "channel": PLAIN})
GOODBYE = frame(CLOSE, b"\x03\xe8")
TO_USER = "broker:users", (json.dumps({"user": VICTIM, "event": {"type": "to-user"}}).encode(),)
ANY_REQUEST = "broker.request:Request.coming_from"
SOCKET = "broker.websocketsubscriber:WebSocketSubscriber"
FRAMES = "broker.websocket:WebSocketConversation"
STREAM = "broker.sse:EventStream"
GATE, CLIENTELE, DECIDE = "broker.gate:Gate", "broker.clientele:Clientele", "broker.auth.rules:RuleBook.decide"
PUBLISHING = "broker.publishing:Publishing.publish"
OUTBOX, ANSWER = "broker.outbox:Outbox", "broker.answerstream:AnswerStream"
SESSION, HUB = "broker.session:Session", "broker.hub:Hub"
ONE, TWO = f"/api/stream?channel={KEPT[0]}", f"/api/stream?channel={KEPT[0]}&channel={KEPT[1]}"
RENDER, LAST = "/api/stream/render-progress/7", json.dumps({"stage": "complete"}).encode()
EVALUATED = "broker.evaluationstream:EvaluationStream"
EVALUATION = "/api/stream/council-score?videoUrl=https%3A%2F%2Fexample.com%2Fv&transcript=hello"

PLACES = (
    # Before it is a client.
    Place(f"{GATE}.identify", end=ANSWERED),
    Place(f"{GATE}.identify", ONE, end=ANSWERED),
    Place(f"{GATE}.identify", EVALUATION, end=ANSWERED),
    Place(f"{GATE}.check_still", end=ANSWERED),
    Place(f"{CLIENTELE}.admit", end=ANSWERED),
    Place(f"{CLIENTELE}.admit", ONE, end=ANSWERED),
    Place(f"{CLIENTELE}.admit", EVALUATION, end=ANSWERED),
    Place(DECIDE, ONE, end=ANSWERED),
    Place(PUBLISHING, "/api/publish", body=b"{}", end=ANSWERED),
    # Not even a request: the last fence, that of the door.
    Place(ANY_REQUEST, end=CUT_OFF),
    # A WebSocket: what it says.
    Place(f"{SESSION}.greeting"),
    Place(f"{FRAMES}.opened"),
    Place(f"{SOCKET}.opened"),
    Place(f"{FRAMES}.receive", says=_subscribe(PLAIN)),
    Place(f"{FRAMES}._on_message", says=_subscribe(PLAIN)),
    Place(f"{SOCKET}.text", says=_subscribe(PLAIN)),
    Place(f"{SOCKET}.binary", says=(frame(BINARY, b"x"),)),
    Place(f"{SESSION}.receive_text", says=_subscribe(PLAIN)),
    Place(DECIDE, says=_subscribe(PLAIN)),
    Place(f"{HUB}.join", says=_subscribe(PLAIN)),
    Place(f"{SESSION}._unsubscribe", says=(*_subscribe(PLAIN), UNSUBSCRIBE)),
    # What it is told: from its own task, from the link's, from history's, from the intake's, from its writer's.
    Place(f"{SOCKET}.joined", says=_subscribe(PLAIN)),
    Place(f"{SOCKET}.joined", says=_subscribe("fresh:1")),
    Place(f"{SOCKET}.joined", says=_subscribe(KEPT[0])),
    Place(f"{SOCKET}.refused", says=_subscribe("forbidden:1")),
    Place(f"{SOCKET}._published", says=(PUBLISH,)),
    Place(f"{SOCKET}.tell", says=_subscribe(PLAIN), gets=TO_USER, is_shared=True),
    Place(f"{SOCKET}._drained", says=_subscribe("slow:1"), gets=_too_much("slow:1"), is_slow=True),
    Place(f"{OUTBOX}._write_some", says=_subscribe("slow:3"), gets=_too_much("slow:3"), is_slow=True, end=CUT_OFF),
    Place(f"{SOCKET}.heartbeat"),
    Place(f"{FRAMES}.pulse"),
    # Who it becomes.
    Place(f"{SOCKET}._looked_at", says=(AUTHENTICATE,)),
    Place(f"{SESSION}.authenticated", says=(AUTHENTICATE,)),
    Place(f"{CLIENTELE}.identify", says=(AUTHENTICATE,)),
    Place(f"{CLIENTELE}.identify", says=(AUTHENTICATE,), is_known=False),
    Place(f"{SOCKET}._seated", says=(AUTHENTICATE,), is_known=False),
    # How it goes.
    Place(f"{FRAMES}.goodbye", says=(GOODBYE,), end=CUT_OFF),
    Place(f"{FRAMES}.awaits_peer", says=(GOODBYE,), end=CUT_OFF),
    Place(f"{FRAMES}.closed", says=(GOODBYE,), end=CUT_OFF),
    Place(f"{SOCKET}.closed", says=(GOODBYE,), end=CUT_OFF),
    # A stream.
    Place(f"{STREAM}.opened", ONE, end=TOLD),
    Place(f"{STREAM}.joined", ONE, end=TOLD),
    Place(f"{STREAM}.joined", "/api/stream?channel=fresh:2", end=TOLD),
    Place(f"{STREAM}.refused", "/api/stream?channel=forbidden:2", end=TOLD),
    Place(f"{STREAM}._composed", TWO, end=TOLD),
    Place(f"{STREAM}.passed", TWO, end=TOLD),
    Place(f"{STREAM}.stream_ended", RENDER, gets=("video_render:7", (LAST,)), end=TOLD),
    Place(f"{STREAM}._drained", "/api/stream?channel=slow:2", gets=_too_much("slow:2"), is_slow=True, end=TOLD),
    Place(f"{ANSWER}.receive", ONE, says=(b"x",), end=TOLD),
    Place(f"{ANSWER}.tell", ONE, gets=TO_USER, is_shared=True, end=TOLD),
    Place(f"{ANSWER}.tell", EVALUATION, gets=TO_USER, is_shared=True, end=TOLD),
    Place(f"{ANSWER}.pulse", ONE, end=TOLD),
    Place(f"{ANSWER}.goodbye", "/api/stream?channel=forbidden:3", end=CUT_OFF),
    Place(f"{EVALUATED}.opened", EVALUATION, end=TOLD),
    Place("broker.evaluationdoor:EvaluationDoor._follow", EVALUATION, end=TOLD),
)
# The last, for the daemon ends with it: SIGTERM.
FAREWELL = Place(f"{SOCKET}.farewell", says=_subscribe(PLAIN), end=CUT_OFF)

_FAILED = "nothing but the fence's own end of the client; tests/stories/test_failing_channels.py has it called"
_ATTRIBUTE = "reads an attribute"
_LISTED = "a list for the stats and for orders to disconnect, of names that are there"
_LEAVES = "it takes the client off its channels: who raised instead would leave it on them"
_NOTHING = "there is nothing in it"
# Hooks of `hooks.py` that no place has, and why.
UNTRIED = {
    f"{FRAMES}.tell": f"calls {SOCKET}.tell, and nothing else",
    f"{FRAMES}.channel_names": _LISTED,
    f"{SOCKET}.channel_names": _LISTED,
    f"{SOCKET}.failed": _FAILED,
    f"{SOCKET}.outlet": _ATTRIBUTE,
    f"{SOCKET}.stream_ended": _NOTHING,
    f"{ANSWER}.awaits_peer": "says no, always",
    f"{ANSWER}.failed": _FAILED,
    f"{STREAM}.channel_names": _LISTED,
    f"{STREAM}.closed": _LEAVES,
    f"{STREAM}.compose": f"a fence itself, around {STREAM}._composed",
    f"{STREAM}.outlet": _ATTRIBUTE,
    f"{EVALUATED}.channel_names": _LISTED,
    f"{EVALUATED}.closed": _LEAVES,
    f"{EVALUATED}.joined": "sets an event",
    f"{EVALUATED}.outlet": _ATTRIBUTE,
    f"{EVALUATED}.refused": _NOTHING,
    f"{EVALUATED}.stream_ended": _NOTHING,
}
