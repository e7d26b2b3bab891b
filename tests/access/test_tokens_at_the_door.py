"""Where a token may stand, what one that does not count is answered, and until when one counts."""

from __future__ import annotations

import time

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.access.conftest import Guard
from tests.access.visitor import bearer, streaming, talking, token
from tests.actors.daemon_process import DaemonProcess

STREAM = "/api/stream?channel=job:ann"


def who(daemon: DaemonProcess, url: str, **options: object) -> object:
    """As whom the daemon greets a WebSocket."""
    with talking(url, **options) as talker:
        return talker.told[0].get("userId")


def test_a_websocket_token_as_header_subprotocol_query_or_message(guarded: DaemonProcess) -> None:
    url = guarded.ws_url
    text = token("ann")
    assert who(guarded, url, additional_headers=bearer(text)) == "ann"
    assert who(guarded, f"{url}?token={text}") == "ann"
    for offered in (["broker.base", f"bearer.{text}"], [f"bearer.{text}"], [f"bearer.{text}", "broker.v1"]):
        assert who(guarded, url, subprotocols=[Subprotocol(name) for name in offered]) == "ann"
    with talking(url) as talker:
        assert talker.subscribe("job:ann")["code"] == "unauthenticated"
        answer = talker.ask("authenticate", "authenticated", token=text)
        assert (answer["type"], answer["userId"]) == ("authenticated", "ann")
        assert talker.subscribe("job:ann")["success"] is True


def test_the_subprotocol_that_is_chosen_is_not_the_token(guarded: DaemonProcess) -> None:
    offered = [Subprotocol(f"bearer.{token()}"), Subprotocol("broker.base")]
    with talking(guarded.ws_url, subprotocols=offered) as talker:
        assert talker._connection.subprotocol == "broker.base"


def test_an_sse_token_as_header_or_query(guarded: DaemonProcess) -> None:
    for url, headers in ((STREAM, bearer(token())), (f"{STREAM}&token={token()}", {})):
        with streaming(guarded.url + url, headers) as source:
            assert next(source.iter_sse()).json()["type"] == "connected"
    answer = httpx.get(guarded.url + STREAM)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="broker"')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (token(seconds=-5), "expired"),
        (token(secret="another secret that is long enough, surely"), "signature"),
        (token(exp=None), "exp"),
        (token(None), "sub"),
        ("nonsense", "token"),
    ],
)
def test_a_bad_token_is_told_and_never_taken_for_none(guard: Guard, text: str, words: str) -> None:
    daemon = guard("--rules-anonymous-subscribe", "*")
    with streaming(daemon.url + STREAM) as source:
        assert source.response.status_code in (401, 200)
    answer = httpx.get(daemon.url + STREAM, headers=bearer(text))
    assert answer.status_code == 401
    assert words in answer.json()["detail"] and text not in answer.text
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    with pytest.raises(InvalidStatus) as refused, talking(f"{daemon.ws_url}?token={text}"):
        pass
    assert refused.value.response.status_code == 401
    with talking(daemon.ws_url) as talker:
        answer = talker.ask("authenticate", "authenticated", token=text)
        assert (answer["code"], words in answer["message"]) == ("bad_token", True)
    assert text not in daemon.log()


def test_the_users_id_is_the_tokens(guarded: DaemonProcess) -> None:
    headers = bearer(token("ann"))
    answer = httpx.get(f"{guarded.url}{STREAM}&userId=bob", headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (403, "userId names another user than the token")
    assert who(guarded, f"{guarded.ws_url}?userId=ann", additional_headers=headers) == "ann"
    with talking(f"{guarded.ws_url}?userId=bob") as talker:
        answer = talker.ask("authenticate", "authenticated", token=token("ann"))
        assert (answer["type"], answer["code"]) == ("error", "bad_token")


def test_two_different_tokens_are_refused(guarded: DaemonProcess) -> None:
    answer = httpx.get(f"{guarded.url}{STREAM}&token={token('bob')}", headers=bearer(token("ann")))
    assert answer.status_code == 400


def test_a_cookie_counts_for_pages_of_allowed_origins_only(guard: Guard) -> None:
    daemon = guard("--auth-cookie", "sid", "--listen-allowed-origins", "https://app.example.com")
    cookie = {"Cookie": f"sid={token()}"}

    def status(headers: dict[str, str]) -> int:
        with streaming(daemon.url + STREAM, {**cookie, **headers}) as source:
            return source.response.status_code

    assert status({"Origin": "https://app.example.com"}) == 200
    assert status({"Origin": daemon.url}) == 200
    assert status({"Sec-Fetch-Site": "same-origin"}) == 200
    assert status({"Referer": f"{daemon.url}/page"}) == 200
    assert status({}) == 403
    assert status({"Sec-Fetch-Site": "cross-site"}) == 403
    assert status({"Origin": "https://evil.example"}) == 403
    assert who(daemon, daemon.ws_url, additional_headers=cookie, origin=Origin("https://app.example.com")) == "ann"
    with pytest.raises(InvalidStatus) as refused, talking(daemon.ws_url, additional_headers=cookie):
        pass
    assert refused.value.response.status_code == 403


def test_who_sends_no_token_in_time_is_ended(guard: Guard) -> None:
    daemon = guard("--auth-authenticate-seconds", "0.3")
    with talking(daemon.ws_url) as late, talking(daemon.ws_url) as timely:
        assert timely.ask("authenticate", "authenticated", token=token())["type"] == "authenticated"
        assert late.ending() == 4401
        assert timely.subscribe("job:ann")["success"] is True
    assert daemon.stats_as(token(broker_admin=True))["delivery"]["endings"]["unauthenticated"] == 1


def test_a_websocket_ends_within_a_second_of_its_tokens_end_unless_renewed(guarded: DaemonProcess) -> None:
    over = time.time() + 2
    short = bearer(token("ann", exp=over))
    with (
        talking(guarded.ws_url, additional_headers=short) as one,
        talking(guarded.ws_url, additional_headers=short) as renewed,
    ):
        assert renewed.ask("authenticate", "authenticated", token=token("bob"))["code"] == "bad_token"
        assert renewed.ask("authenticate", "authenticated", token=token("ann"))["userId"] == "ann"
        assert one.ending() == 4402
        assert -0.1 < time.time() - over < 1.0
        assert renewed.subscribe("job:ann")["success"] is True


def test_a_new_token_takes_away_what_it_does_not_allow(guarded: DaemonProcess) -> None:
    wide, narrow = token("ann", subscribe=["job:*", "note:*"]), token("ann", subscribe=["note:*"])
    with talking(guarded.ws_url, additional_headers=bearer(wide)) as talker:
        talker.subscribe("job:1")
        talker.subscribe("note:1")
        talker.say("authenticate", token=narrow)
        assert talker.hear("unsubscribed")["name"] == "job:1"
        assert [message.get("code") for message in talker.told[-3:]] == [None, "forbidden", None]
        assert talker.subscribe("job:1")["code"] == "forbidden"
        stats = guarded.stats_as(token(broker_admin=True))
        assert stats["websocket"]["clients"][0]["subscribedChannels"] == ["note:1"]


def test_without_authentication_the_query_names_the_user(daemon: DaemonProcess) -> None:
    with talking(f"{daemon.ws_url}?userId=zoe&token=whatever") as talker:
        assert talker.ask("authenticate", "authenticated", token="x")["code"] == "bad_command"
        assert daemon.stats()["websocket"]["clients"][0]["userId"] == "zoe"
