"""Row 18: tokens that must not count are shown at every door; good ones end in time, and survive a change of keys."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jwt
from attrs import frozen

from tests.access.visitor import authorization, bearer
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import CLOSE, TEXT, RawClient, text, upgrade
from tests.actors.signer import SECRET, handmade, jwk, jwks, part, pem, token
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.waits import seconds_until

ISSUER, AUDIENCE, KINDS = "https://issuer.example", "broker", ("RS256", "ES256")
STREAM = "/api/stream?channel=job:1"
PATIENCE_SECONDS = 3.0  # for who is nobody, over WebSocket


@frozen
class Bad:
    """A token that must not count, and why: as the daemon's figures name it."""

    name: str
    token: str
    reason: str


def good(which: int = 0, **changes: Any) -> str:
    """A token that counts, but for `changes`; `which` is its key."""
    now = time.time()
    kind, headers = KINDS[which > 0], changes.pop("headers", {"kid": f"key-{which}"})
    said = {"exp": now + 600, "iat": now - 5, "iss": ISSUER, "aud": AUDIENCE, "broker_admin": True, **changes}
    return token(kind, which, headers=headers, **said)


def bad_ones() -> list[Bad]:
    now = time.time()
    said = jwt.decode(good(), options={"verify_signature": False})
    header, payload, signature = good().split(".")
    other = part({**said, "sub": "bob"})
    public = pem("RS256")
    return [
        Bad("HS256 with the public key", handmade({"alg": "HS256", "typ": "JWT"}, said, public), "bad_signature"),
        Bad("the same, and the key's kid", handmade({"alg": "HS256", "kid": "key-0"}, said, public), "bad_signature"),
        Bad("HS256 with no secret at all", handmade({"alg": "HS256"}, said, b""), "bad_signature"),
        *(Bad(f"alg {alg}", f"{part({'alg': alg})}.{part(said)}.", "algorithm") for alg in ("none", "None", "NONE")),
        Bad("alg none with a signature", f"{part({'alg': 'none'})}.{payload}.{signature}", "algorithm"),
        Bad("no signature", f"{header}.{payload}.", "bad_signature"),
        Bad("other claims under the signature", f"{header}.{other}.{signature}", "bad_signature"),
        Bad("a kid that is unknown", good(headers={"kid": "key-9"}), "unknown_key"),
        Bad("the kid of another key", good(1, headers={"kid": "key-2"}), "unknown_key"),
        Bad("a key of its own", good(headers={"kid": "key-9", "jwk": jwk("RS256", 9)}), "unknown_key"),
        Bad("wrong aud", good(aud="other"), "wrong_audience"),
        Bad("no aud", good(aud=None), "wrong_audience"),
        Bad("wrong iss", good(iss="https://evil.example"), "wrong_issuer"),
        Bad("no iss", good(iss=None), "wrong_issuer"),
        Bad("wrong typ", good(headers={"kid": "key-0", "typ": "secevent+jwt"}), "wrong_type"),
        Bad("what is critical and unknown", good(headers={"kid": "key-0", "crit": ["x"], "x": 1}), "critical_header"),
        Bad("nbf ahead", good(nbf=now + 300), "not_yet"),
        Bad("iat ahead", good(iat=now + 300), "not_yet"),
        Bad("exp past", good(exp=now - 1), "expired"),
        Bad("no exp", good(exp=None), "no_expiry"),
        Bad("no sub", good(sub=None), "no_subject"),
        Bad("no token at all", "nonsense", "malformed"),
    ]


def play(stage: Stage) -> None:
    file = stage.folder / "keys.json"
    publish_keys(file, 0, 1)
    daemon = stage.daemon(
        stage.redis().url,
        *("--auth-jwks", str(file), "--auth-jwks-grace-seconds", "0", "--auth-jwks-refresh-seconds", "1"),
        *("--auth-issuer", ISSUER, "--auth-audience", AUDIENCE, "--auth-jwks-timeout-seconds", "0.2"),
        *("--rules-user-subscribe", "*", "--rules-user-publish", "*"),
        *("--auth-authenticate-seconds", str(PATIENCE_SECONDS)),
        environ={"BROKER_AUTH_SECRET": SECRET},
    )
    wrong, taken, answers = list[str](), list[str](), list[tuple[str, str]]()
    with httpx.Client(base_url=daemon.url, timeout=10) as web, ThreadPoolExecutor(1) as beside:
        nobody = beside.submit(nobodys_end, daemon)
        before = refused_by_reason(daemon)
        for bad in [Bad("none", "", ""), *bad_ones()]:
            seen = shown(daemon, web, bad.token) if bad.token else shown_nothing(daemon, web)
            answers += seen
            for door, answer in seen:
                (taken if answer == "taken" else wrong if answer != "refused" else []).append(
                    f"{bad.name}, {door}: {answer}"
                )
            after = refused_by_reason(daemon)
            # No token is no bad one.
            expected = {bad.reason: len(seen)} if bad.reason else {}
            if after - before != expected:
                wrong.append(f"{bad.name}: counted as {dict(after - before)}, not {expected}")
            before = after
        sent, counted = show_damaged(stage, daemon, web, taken, wrong)
        refused = [
            f"{door}: {answer}"
            for which in (0, 1)
            for door, answer in shown(daemon, web, good(which))
            if answer != "taken"
        ]
        most = stage.pick(1.0, 5.0)  # at small size others have the processors too
        stage.exactly("doors that refused", len({door for door, answer in answers if answer == "refused"}), 7)
        stage.at_least("bad tokens refused", sum(answer == "refused" for _, answer in answers), 100)
        stage.exactly("damaged tokens that the daemon counted as refused", counted, sent)
        stage.exactly("wrongly accepted", len(taken), 0)
        stage.exactly("refused for another reason", len(wrong), 0)
        stage.at_most("worst lateness of a token's end", lateness(stage, daemon), most, "s")
        code, waited = nobody.result()
        stage.exactly("nobody's WebSocket ended with", code, 4401)
        stage.at_least("nobody's WebSocket ended after", waited, PATIENCE_SECONDS, "s")
        stage.at_most("nobody's WebSocket ended after", waited, PATIENCE_SECONDS + most, "s")

        staying_token = authorization(good(1, sub="staying"))
        staying = [RawClient.websocket(daemon.port, b"/ws", staying_token) for _ in range(stage.pick(50, 5))]
        publish_keys(file, 1, 2)
        retired = seconds_until(lambda: web.get("/api/realtime/stats", headers=bearer(good(0))).status_code == 401)
        refused += [
            f"rotated, {door}: {a}" for which in (1, 2) for door, a in shown(daemon, web, good(which)) if a != "taken"
        ]
        old = [f"rotated, {door}: {answer}" for door, answer in shown(daemon, web, good(0)) if answer != "refused"]
    # It looks for other keys once a second.
    stage.at_most("retired key refused after", retired, stage.pick(2.0, 10.0), "s")
    stage.exactly("retired keys accepted", len(old), 0)
    stage.exactly("good tokens wrongly refused", len(refused), 0)
    stage.exactly("connections dropped by the rotation", sum(not is_open(each) for each in staying), 0)
    stage.faults += [*taken, *wrong, *refused, *old]
    for each in staying:
        each.sock.close()


def publish_keys(file: Path, *which: int) -> None:
    found = [jwk(KINDS[each > 0], each, kid=f"key-{each}", use="sig") for each in which]
    written = file.with_suffix(".new")
    written.write_bytes(jwks(*found))
    written.replace(file)


def shown(daemon: DaemonProcess, web: httpx.Client, shown: str) -> list[tuple[str, str]]:
    """What a token gets at every door: taken, refused (with its named code), or something else."""
    headers = bearer(shown)
    found = []
    for name, method, path in (
        ("HTTP GET", "GET", "/api/realtime/stats"),
        ("HTTP POST", "POST", "/api/publish"),
        ("SSE", "GET", STREAM),
    ):
        with web.stream(method, path, headers=headers, content=b"{}" if method == "POST" else None) as answer:
            if answer.status_code != 401:
                found.append((name, "taken" if answer.status_code in (200, 400) else f"status {answer.status_code}"))
            else:
                is_named = 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
                found.append((name, "refused" if is_named else "refused without the name"))
    with RawClient.connect(daemon.port) as client:
        status = client.ask(upgrade(b"/ws", authorization(shown))).status
        found.append(("WebSocket", {101: "taken", 401: "refused"}.get(status, f"status {status}")))
    with RawClient.websocket(daemon.port) as client:
        client.send(text({"type": "authenticate", "token": shown}))
        answer = client.frame().json()
        kind = answer.get("code", answer["type"])
        found.append(("message", {"authenticated": "taken", "bad_token": "refused"}.get(kind, str(answer))))
    return found


def shown_nothing(daemon: DaemonProcess, web: httpx.Client) -> list[tuple[str, str]]:
    """What who has no token gets at every door, as `shown` has it."""
    answers = {
        "HTTP GET": web.get("/api/realtime/stats"),
        "HTTP POST": web.post("/api/publish", content=b"{}"),
        "SSE": web.get(STREAM),
    }
    found = [(door, "refused" if each.status_code == 401 else str(each.status_code)) for door, each in answers.items()]
    with RawClient.websocket(daemon.port) as client:
        for kind, more in (("subscribe", {}), ("publish", {"event": {"type": "x"}})):
            client.send(text({"type": kind, "channel": "job:1", **more}))
            answer = client.frame().json()
            is_taken = answer["type"] in ("subscribed", "published")
            is_refused = answer.get("code") == "unauthenticated"
            found.append((f"WebSocket {kind}", "taken" if is_taken else "refused" if is_refused else str(answer)))
    return found


def nobodys_end(daemon: DaemonProcess) -> tuple[int, float]:
    """Be nobody over WebSocket, and ask for something. Returns the code of the end, and the seconds to it."""
    began = time.monotonic()
    with RawClient.websocket(daemon.port) as client:
        client.send(text({"type": "subscribe", "channel": "job:1"}))
        try:
            while (got := client.frame()).opcode == TEXT:
                pass
        except (EOFError, TimeoutError):
            return 0, math.inf
        return got.code or 0, time.monotonic() - began


def refused_by_reason(daemon: DaemonProcess) -> Counter[str]:
    return Counter(daemon.stats_as(good())["auth"]["refused"])


def show_damaged(
    stage: Stage, daemon: DaemonProcess, web: httpx.Client, taken: list[str], wrong: list[str]
) -> tuple[int, int]:
    """Good tokens with one character changed. Returns how many were sent, and refused by the daemon's count."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    before, damaged = refused_by_reason(daemon), stage.pick(3000, 60)
    for _ in range(damaged):
        whole = good(stage.dice.randrange(2))
        at = stage.dice.randrange(len(whole))
        changed = whole[:at] + stage.dice.choice(letters.replace(whole[at], "")) + whole[at + 1 :]
        status = web.get("/api/realtime/stats", headers=bearer(changed)).status_code
        if status == 200:
            taken.append(f"{whole} with another character at {at}")
        elif status != 401:
            wrong.append(f"{changed}: {status}")
    return damaged, (refused_by_reason(daemon) - before).total()


def lateness(stage: Stage, daemon: DaemonProcess) -> float:
    """Have tokens end while their clients are connected. Returns the worst lateness; one that is early is a fault."""
    count = stage.pick(50, 5)
    over = time.time() + stage.pick(5.0, 2.5)
    # They are as many as a user may have, so nobody else is this user: the daemon may not have seen yet who left.
    token = authorization(good(1, exp=over, sub="ending"))
    sockets = [RawClient.websocket(daemon.port, b"/ws", token) for _ in range(count)]
    streams = [RawClient.stream(daemon.port, STREAM, token) for _ in range(count)]
    worst = 0.0
    for client in (*sockets, *streams):
        if client in sockets:
            while (got := client.frame()).opcode != CLOSE:
                assert got.opcode == TEXT, got
            if got.code != 4402:
                stage.faults.append(f"a WebSocket was closed with {got.code}, not 4402")
        elif b"event: token_expired" not in client.read_to_end():
            stage.faults.append("a stream ended without the event token_expired")
        late = time.time() - over
        worst = max(worst, late)
        if late < -0.05:
            stage.faults.append(f"a token ended {-late:.3f} s early")
        client.sock.close()
    return worst


def is_open(client: RawClient) -> bool:
    client.send(text({"type": "ping"}))
    while (got := client.frame()).opcode == TEXT:
        if got.json()["type"] == "pong":
            return True
    return False


ROW = Row(
    18,
    "A token that must not count never does, at no door; a good one ends in time and survives a change of keys",
    "none, key confusion, alg none, wrong kid, aud, iss and typ, nbf ahead, exp past and while connected, rotation",
    "all refused; an open connection ends within 1 s of exp; valid ones survive rotation",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
