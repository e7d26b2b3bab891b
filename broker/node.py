"""A node: one daemon process among those that share a Redis, and what is known of it there.

<prefix>broker:nodes            a sorted set: each node with the millisecond, by Redis' clock, until which it counts
<prefix>broker:nodes:records    a hash: what each says of itself
<prefix>broker:users:<node>     a hash: how many connections and streams each user with a token has there
<prefix>broker:node:<node>      the channel on which a node hears that an answer is there for it
<prefix>broker:nodes:answers:<question>:<node>
                                an answer, for a few seconds
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import field, frozen

_NAME_MAX = 64


def new_node_id(name: str, slot: int | None = None) -> str:
    """An id that no other process has, or had.

    Args:
        name: `daemon.node`; empty for the name of the machine.
        slot: of a worker; None for a daemon that is one process.
    """
    shown = re.sub(r"[^A-Za-z0-9._-]", "-", name or socket.gethostname())[:_NAME_MAX] or "node"
    return f"{shown}:{os.getpid() if slot is None else slot}-{secrets.token_hex(4)}"


@frozen
class NodeKeys:
    """What belongs to one node in Redis, by name.

    Args:
        prefix: `redis.channel_prefix`.
    """

    prefix: str
    node: str
    nodes: str = field(init=False)
    records: str = field(init=False)
    users_of_all: str = field(init=False)
    users: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        for name, value in (
            ("nodes", "nodes"),
            ("records", "nodes:records"),
            ("users_of_all", "users:"),
            ("users", f"users:{self.node}"),
        ):
            object.__setattr__(self, name, f"{self.prefix}broker:{value}")

    def channel(self, node: str) -> str:
        """Where a node hears of answers; as the hub names it, without the prefix."""
        return f"broker:node:{node}"

    def answer(self, question: str, node: str) -> str:
        return f"{self.prefix}broker:nodes:answers:{question}:{node}"


class NodeRecord(msgspec.Struct, frozen=True, rename="camel"):
    """What a node says of itself with each renewal.

    Args:
        started_at: as the stats show times.
        address: the first that it listens on.
        state: of `Lifecycle`.
    """

    version: str = ""
    started_at: str = ""
    address: str = ""
    clients: int = 0
    channels: int = 0
    state: str = ""
    is_recorder: bool = False


_decode = msgspec.json.Decoder(NodeRecord).decode


def record_from_redis(data: object) -> NodeRecord | None:
    """What a node said of itself; None where that is not there, or not understood."""
    if not isinstance(data, bytes):
        return None
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def entry(id: str, record: NodeRecord | None, *, answered: bool, why: str | None = None) -> Mapping[str, Any]:
    """A node as the answers to `GET /api/realtime/...` list it.

    Args:
        record: None where it is not known.
        why: what is wrong; None for nothing.
    """
    fields: dict[str, Any] = dict.fromkeys(NodeRecord.__struct_encode_fields__)
    if record is not None:
        fields = msgspec.to_builtins(record)
    return {"id": id, **fields, "answered": answered, "why": why}
