"""What daemons say to each other over Redis: orders, events for users, questions and answers, records of nodes. What is
not understood is passed over with a warning; nothing of it ends a link, a daemon or a client that it does not name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from broker.auth.revocation import SUBJECT, TOKEN, Revocation, Revocations
from broker.control import Control, Ear
from broker.ending import DISCONNECTED, REVOKED
from broker.message import refusal
from broker.node import entry, record_from_redis
from broker.nodes.survey import Survey, _decode_answer
from tests.fuzz.reading import json_of
from tests.fuzz.target import Target

NOW = 1_000.0


class Client:
    """A client that may be named."""

    def __init__(self, id: str, user: str) -> None:
        self.id, self.user = id, user
        self.ending: object = None
        self.told: list[bytes] = []
        self.identity = SimpleNamespace(kind="user", user_id=user, token_id=f"token of {user}", issued_at=NOW - 5)
        self.conversation = SimpleNamespace(channel_names=("job:1",), tell=self.told.append)

    def end(self, ending: object) -> None:
        self.ending = self.ending or ending


class Clientele:
    """Two clients."""

    def __init__(self) -> None:
        self.clients = [Client("ws_1", "ann"), Client("ws_2", "bob")]

    def everyone(self) -> list[Client]:
        return self.clients

    def of_user(self, user: str) -> list[Client]:
        assert isinstance(user, str)
        return [client for client in self.clients if client.user == user]

    def of_id(self, id: str) -> Client | None:
        return next((client for client in self.clients if client.id == id), None)


def check(data: bytes) -> str:
    clientele, revocations = Clientele(), Revocations()
    gate: Any = SimpleNamespace(revocations=revocations)
    control = Control(None, clientele, gate, None, "", 3600.0, lambda: 0, lambda: NOW)  # type: ignore[arg-type]
    membership: Any = SimpleNamespace(node="n1", keys=SimpleNamespace(channel=lambda node: f"broker:node:{node}"))
    survey = Survey(membership, control, None, {})  # type: ignore[arg-type]
    rung = Ear(control.ears["broker:node:n1"])
    for message in data.split(b"\0"):
        # The link hands on nothing else.
        if message and refusal(message, len(message)) is None:
            Ear(control._ordered).deliver(message, 1, 0.0)
            Ear(control._told).deliver(message, 1, 0.0)
    ended = [client.ending for client in clientele.clients]
    assert all(ending in (None, DISCONNECTED, REVOKED) for ending in ended)
    for revocation in revocations:
        assert revocation.kind in (TOKEN, SUBJECT) and revocation.until > NOW
        again = Revocation.from_member(revocation.member, revocation.until)
        assert repr(again) == repr(revocation)
    for client in clientele.clients:
        for event in client.told:
            assert event in data
            json_of(event)
            assert client.user.encode() in data or b"\\" in data
    asked = survey._to_answer.statistics().current_buffer_used
    said = f"{sum(ending is not None for ending in ended)} {len(list(revocations))} {asked} {rings(rung, data)}"
    return f"{said} {record(data)} {sum(len(client.told) for client in clientele.clients)}"


def rings(ear: Ear, data: bytes) -> str:
    """A ring is of a daemon's own channel; its listener complains of junk as of any order."""
    try:
        ear._heard(data)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return "junk"
    return "ring"


def record(data: bytes) -> str:
    found = record_from_redis(data)
    if found is not None:
        assert msgspec.json.encode(entry("n2", found, answered=True))
    try:
        answer = _decode_answer(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return str(found is not None)
    assert answer.answer is None or isinstance(answer.answer, dict)
    return f"{found is not None} answer"


TARGET = Target(
    "orders",
    check,
    (
        b'{"do": "disconnect", "user": "ann"}',
        b'{"do": "disconnect", "client": "ws_2"}\0{"do": "disconnect", "channel": "job:1"}',
        b'{"do": "revoke", "member": "token:999.0:token of ann", "until": 2000}',
        b'{"do": "revoke", "member": "user:999.0:bob", "until": 2000.5}',
        b'{"do": "ask", "question": "q", "from": "n2", "to": null, "what": "stats", "with": {}}',
        b'{"user": "ann", "event": {"a": [1, 2]}}',
        b'{"question": "q", "node": "n2"}',
        b'{"version": "1", "startedAt": "x", "address": "a", "clients": 1, "channels": 2, "state": "ready"}',
        b'{"record": {"version": "1"}, "answer": {"clients": []}, "why": null}',
        b'{"do": "nothing known"}',
        b"[]",
        b"",
    ),
    (
        b'"do"', b'"disconnect"', b'"revoke"', b'"ask"', b'"user"', b'"client"', b'"channel"', b'"member"', b'"until"',
        b'"token:999.0:token of ann"', b'"user:999.0:ann"', b'"token:nan:x"', b'"user:inf:x"', b'"user:-1:"', b'"ann"',
        b'"event"', b'"question"', b'"from"', b'"to"', b'"what"', b'"with"', b'"node"', b'"n1"', b'"record"',
        b'"answer"', b"null", b"{}", b"1e308", b"\0", b"\\u0000", b'"job:1"', b'"clients"',
    ),
    frozenset({"1 0 0 junk True 0", "2 0 0 junk False 0", "1 1 0 junk True 0", "0 0 1 junk True 0"}),
    max_bytes=3_000,
)  # fmt: skip
