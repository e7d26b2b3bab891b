"""Imports point down the rings and never sideways; files stay short; names say something."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "broker"

# The rings, outside in. A file or folder that is not named here fails the test below.
RINGS: dict[int, set[str]] = {
    6: {"__main__"},
    5: {"cli"},
    4: {
        "daemon",
        "succession",
        "maintenance",
        "reload",
        "assembly",
        "evaluation",
        "figures",
        "metrics",
        "workers",
    },
    3: {
        "door",
        "websocket",
        "sse",
        "web",
        "upstream",
        "openfiles",
        "log",
        "demo",
        "subscriber",
        "doctor",
        "publisher",
        "evaluationdoor",
        "websocketsubscriber",
        "intake",
        "control",
        "nodes",
        "takeover",
        "dump",
        "systemd",
        "post",
    },
    2: {
        "keysource",
        "keyhost",
        "keyfile",
        "client",
        "clientele",
        "outbox",
        "visit",
        "census",
        "answerstream",
        "ledger",
        "history",
        "listening",
        "reception",
        "gate",
        "evaluationstream",
        "tlssocket",
        "tls",
        "sealedoutbox",
        "outboxpool",
        "publishing",
        "lifecycle",
        "drain",
        "signals",
        "controlsocket",
        "controlcall",
        "looplag",
        "eventage",
        "process",
        "readiness",
        "tracing",
        "seats",
    },
    1: {
        "hub",
        "topic",
        "interest",
        "session",
        "stream",
        "request",
        "frames",
        "eventstream",
        "wireformat",
        "origins",
        "turnstile",
        "proxyheader",
        "forwarded",
        "command",
        "inquiry",
        "submission",
        "auth",
        "handshake",
    },
    0: {
        "__init__",
        "message",
        "channel",
        "ending",
        "errors",
        "config",
        "timestamp",
        "events",
        "position",
        "run",
        "gap",
        "cursor",
        "pattern",
        "bucket",
        "errorcode",
        "headers",
        "histogram",
        "traceparent",
        "complaints",
        "node",
    },
}
RING_OF = {name: ring for ring, names in RINGS.items() for name in names}

# Within a ring, a file may import these neighbours: they are one noun in several files.
SIDEWAYS = {
    ("door", "post"): "a worker accepts for others by its door",
    ("systemd", "workers"): "a worker tells its vitals, as the daemon does",
    ("post", "workers"): "a worker's signs of life are counted",
    ("openfiles", "post"): "a worker's share follows from the open-file limit",
    ("openfiles", "door"): "how many connections there may be follows from the open-file limit",
    ("reload", "workers"): "workers go by the settings that are read again",
    ("succession", "workers"): "the supervisor takes over and hands over, as a daemon does",
    ("maintenance", "workers"): "a daemon of several workers can be maintained too",
    ("listening", "workers"): "a slot is listeners",
    ("systemd", "post"): "a worker tells its vitals, as the daemon does",
    ("daemon", "workers"): "a worker is a daemon with a supervisor",
    ("figures", "assembly"): "the daemon shows the figures of its parts",
    ("figures", "metrics"): "metrics show figures too",
    ("metrics", "assembly"): "the daemon shows its metrics",
    ("tracing", "publishing"): "a publish may have a span",
    ("lifecycle", "readiness"): "whether it is ready is a part of its life",
    ("assembly", "daemon"): "the daemon starts the parts that the assembly has wired",
    ("assembly", "reload"): "settings are told to the parts that the assembly has wired",
    ("reload", "daemon"): "the daemon goes by the settings in force",
    ("reload", "maintenance"): "settings can be read again",
    ("maintenance", "daemon"): "a daemon can be maintained",
    ("controlsocket", "controlcall"): "a call goes to the control socket",
    ("succession", "daemon"): "the daemon is one in a row of daemons",
    ("websocketsubscriber", "websocket"): "a WebSocket client's talk is the subscriber's",
    ("intake", "websocketsubscriber"): "clients publish through the intake",
    ("intake", "websocket"): "clients publish through the intake",
    ("answerstream", "evaluationstream"): "an evaluation is watched over an event stream",
    ("ledger", "evaluationstream"): "an evaluation is read from the ledger",
    ("control", "web"): "the admin calls go to control",
    ("keysource", "gate"): "the gate reads tokens with the keys of their source",
    ("history", "publishing"): "what is published is kept",
    ("request", "auth"): "a credential is part of a request; who may not is answered",
    ("request", "handshake"): "a handshake answers a request",
    ("auth", "session"): "a session goes by the rules",
    ("eventstream", "wireformat"): "a wire format is made of its encoders",
    ("frames", "wireformat"): "a wire format is made of its encoders",
    ("wireformat", "topic"): "a topic has a lane for each wire format",
    ("topic", "hub"): "the hub is the table of topics",
    ("position", "run"): "a run is events and their positions",
    ("position", "cursor"): "a cursor is positions",
    ("timestamp", "gap"): "a gap is an event",
    ("wireformat", "hub"): "the hub encodes a batch once for each wire format",
    ("request", "origins"): "an origin is what a request comes from",
    ("request", "inquiry"): "an inquiry is what a request asks for",
    ("auth", "submission"): "what is published goes by the rules",
    ("request", "submission"): "a submission is what a request asks for",
    ("origins", "submission"): "which pages may publish follows which may read",
    ("keyhost", "keysource"): "the key source is made of files and hosts",
    ("keyfile", "keysource"): "the key source is made of files and hosts",
    ("request", "stream"): "a stream is what a request asks for",
    ("outbox", "client"): "a client owns its outbox",
    ("sealedoutbox", "client"): "a client owns its outbox",
    ("outboxpool", "client"): "a client's outbox is part of the pool",
    ("outboxpool", "clientele"): "the clientele has a pool of outboxes",
    ("outboxpool", "outbox"): "an outbox is part of the pool",
    ("outboxpool", "sealedoutbox"): "an outbox is part of the pool",
    ("outbox", "sealedoutbox"): "over TLS it is an outbox that seals",
    ("tlssocket", "sealedoutbox"): "it seals with the TLS connection",
    ("tlssocket", "visit"): "a visit may be over TLS",
    ("visit", "reception"): "a visit's requests are received",
    ("outbox", "visit"): "closing a socket that trio may wait on",
    ("client", "answerstream"): "an event stream is a client's conversation",
    ("clientele", "drain"): "the drain is the clientele's end",
    ("client", "drain"): "the drain is the clientele's end",
    ("lifecycle", "signals"): "signals end the daemon's life",
    ("outbox", "controlsocket"): "closing a socket that trio may wait on",
    ("client", "clientele"): "the clientele is made of clients",
    ("client", "census"): "the census lists clients",
    ("clientele", "census"): "the census counts the clientele",
    ("seats", "clientele"): "a client of a user takes a seat",
    ("client", "nodes"): "the roster lists clients",
    ("clientele", "nodes"): "the roster lists the clientele",
    ("control", "nodes"): "who comes says so on the control channel",
    ("nodes", "web"): "the stats are those of all nodes",
    ("demo", "web"): "the console opens with the demo's channels",
    ("channel", "config"): "channel types are part of the settings",
    ("timestamp", "events"): "an event is stamped when it is made",
    ("channel", "pattern"): "a pattern means channels",
    ("pattern", "config"): "patterns of channels are part of the settings",
    ("errors", "pattern"): "every exception is in errors",
    ("errors", "channel"): "every exception is in errors",
    ("errors", "config"): "every exception is in errors",
    ("errors", "events"): "every exception is in errors",
    ("channel", "events"): "an event knows its channel",
    ("events", "message"): "a message may have to be an event",
}
IO_MODULES = {"trio", "socket", "asyncio", "threading", "time", "select", "subprocess"}


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


@cache
def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it, except for typing only."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "broker":
                found |= {f"broker.{alias.name}" for alias in node.names}
    return found


FILES = sorted(ROOT.rglob("*.py"))


def test_every_file_has_a_ring() -> None:
    assert {part_of(path) for path in FILES} == set(RING_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    here = part_of(path)
    wrong = []
    for name in imports_of(path):
        if not name.startswith("broker."):
            continue
        there = name.split(".")[1]
        if there == here or there not in RING_OF:
            continue
        if RING_OF[there] > RING_OF[here] or (RING_OF[there] == RING_OF[here] and (there, here) not in SIDEWAYS):
            wrong.append(f"{here} (ring {RING_OF[here]}) imports {there} (ring {RING_OF[there]})")
    assert wrong == []


def test_no_sideways_permission_is_left_over() -> None:
    used = {
        (name.split(".")[1], part_of(path)) for path in FILES for name in imports_of(path) if name.startswith("broker.")
    }
    assert set(SIDEWAYS) - used == set()


@pytest.mark.parametrize(
    "path", [path for path in FILES if RING_OF[part_of(path)] == 1], ids=lambda path: str(path.relative_to(ROOT))
)
def test_rules_do_no_io_and_have_no_clock(path: Path) -> None:
    assert {name.split(".")[0] for name in imports_of(path)} & IO_MODULES == set()
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Await | ast.AsyncFor)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_open_with_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text))


def test_no_file_is_named_after_nothing() -> None:
    assert {path.stem for path in FILES} & {"utils", "helpers", "common", "misc", "manager", "core"} == set()


def test_publishing_from_the_shell_does_not_load_the_daemon() -> None:
    code = "import sys, broker.cli.pub; print(' '.join(m for m in ('trio', 'quart', 'hypercorn') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == ""
