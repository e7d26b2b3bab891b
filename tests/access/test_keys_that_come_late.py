"""A token whose key is not known yet: who sends it waits for the key, and nobody else does."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import jwt
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from broker.auth.identity import Identity
from broker.config.access import Auth, Rules
from broker.errors import TokenRefused
from broker.gate import Gate
from tests.access.visitor import bearer, streaming, talking, token
from tests.actors.redis_server import RedisServer


def set_of(*keys: tuple[str, Ed25519PrivateKey]) -> str:
    found = [
        {**json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "EdDSA"}
        for kid, key in keys
    ]
    return json.dumps({"keys": found})


def test_a_new_key_is_found_when_a_token_names_it(redis_server: RedisServer, start_daemon: Any, tmp_path: Path) -> None:
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    file = tmp_path / "keys.json"
    file.write_text(set_of(("old", old)))
    daemon = start_daemon(redis_server.url, "--auth-jwks", str(file))

    def signed(kid: str, key: Ed25519PrivateKey, user: str = "ann") -> str:
        claims = {"sub": user, "exp": time.time() + 300, "subscribe": ["job:*"]}
        return jwt.encode(claims, key, "EdDSA", {"kid": kid})

    assert daemon is not None
    with talking(daemon.ws_url, additional_headers=bearer(signed("old", old))) as first:
        assert first.subscribe("job:1")["success"] is True
        file.write_text(set_of(("new", new)))
        with talking(daemon.ws_url) as second:
            # What is said while the token is looked at waits for that.
            second.say("authenticate", token=signed("new", new))
            second.say("subscribe", channel="job:1")
            assert second.hear("authenticated", "error")["type"] == "authenticated"
            assert second.hear("subscribed", "error")["type"] == "subscribed"
        # The old key has gone from the set, and still counts.
        with streaming(f"{daemon.url}/api/stream?channel=job:1", bearer(signed("old", old))) as source:
            assert source.response.status_code == 200
        with streaming(f"{daemon.url}/api/stream?channel=job:1", bearer(signed("forged", new))) as source:
            assert source.response.status_code == 401
        with streaming(f"{daemon.url}/api/stream?channel=job:1", bearer(token("ann"))) as source:
            assert source.response.status_code == 401


def test_a_key_host_that_hangs_keeps_nobody_waiting(redis_server: RedisServer, start_daemon: Any) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/keys"
        daemon = start_daemon(redis_server.url, "--auth-jwks", url, "--auth-jwks-timeout-seconds", "0.5")
        text = jwt.encode({"sub": "ann", "exp": time.time() + 300}, Ed25519PrivateKey.generate(), "EdDSA", {"kid": "x"})
        begun = time.monotonic()
        with streaming(f"{daemon.url}/api/stream?channel=job:1", bearer(text)) as source:
            assert source.response.status_code == 401
        with talking(daemon.ws_url) as talker:
            talker.say("authenticate", token=text)
            talker.say("ping")
            assert talker.hear("error")["code"] == "bad_token"
            assert talker.hear("pong")
        assert time.monotonic() - begun < 3.0


class _NoKeys:
    async def await_key(self) -> None:
        raise RuntimeError("a bug of ours")


class _Waiting(Gate):
    def read(self, text: str) -> Identity:
        raise TokenRefused("unknown_key", "no such key")


async def test_who_waits_for_a_key_is_answered_whatever_fails() -> None:
    gate = _Waiting(Auth(), Rules(), cast(Any, _NoKeys()), cast(Any, None), cast(Any, None))
    told: list[Identity | TokenRefused] = []
    with capture_logs() as logged:
        async with trio.open_nursery() as nursery:
            await nursery.start(gate.serve)
            gate.look_at_soon("a.b.c", told.append)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert [str(each) for each in told] == ["the daemon could not look at it; its log says why"]
    assert [line["event"] for line in logged] == ["a token could not be looked at"]
