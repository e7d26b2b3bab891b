"""Where the token is in a request, and that no line of a log has it."""

from __future__ import annotations

import time
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.auth.apikey import new_key
from broker.auth.credential import (
    BEARER,
    COOKIE,
    LOGGED_CHARACTERS,
    QUERY,
    SUBPROTOCOL,
    Credential,
    credential_of,
    masked,
    without_secrets,
)
from broker.config.access import Auth
from broker.request import Request, RequestRefused
from tests.actors.signer import token

JWT = token()
KEY = new_key("billing")


def found(
    *headers: tuple[str, str], target: str = "/ws", websocket: bool = True, cookie: str = ""
) -> Credential | tuple[int, str, str] | None:
    """The credential, or status, detail and challenge of the refusal."""
    lines = tuple((name.encode(), value.encode("latin-1")) for name, value in headers)
    request = Request("GET", target.encode(), b"1.1", lines, websocket)
    try:
        return credential_of(request, Auth(cookie=cookie))
    except RequestRefused as refused:
        assert JWT not in f"{refused.detail} {refused.hint} {refused.headers}"
        return refused.status, refused.detail, refused.headers["WWW-Authenticate"]


def test_none() -> None:
    assert found() is None
    assert found(("cookie", f"token={JWT}"), target="/ws?userId=ann&access_token=x&Token=y") is None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  ", " Bearer"])
@pytest.mark.parametrize("text", [JWT, KEY, "a", "a+/~=="], ids=count())
def test_authorization(scheme: str, text: str) -> None:
    assert found(("authorization", f"{scheme} {text}"), websocket=False) == Credential(BEARER, text)


INVALID = 'Bearer realm="broker", error="invalid_request"'


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", "bearer a b", "Bearer \xe9", "Bearer a,b", 'Bearer "a"', "Bearer a\x00", "Bearer\ta"]
)
def test_authorization_that_cannot_be_read(value: str) -> None:
    status, detail, challenge = found(("authorization", value))  # type: ignore[misc]
    if value == "Bearer\ta":
        assert (status, challenge) == (401, 'Bearer realm="broker"')
    else:
        assert (status, detail, challenge) == (400, "the Authorization header has no readable token", INVALID)


@pytest.mark.parametrize("value", ["", "Basic YTpi", "Bearerx a", "Digest bearer", f"Token {JWT}", JWT])
def test_another_scheme(value: str) -> None:
    sentence = "the Authorization header is not of the scheme Bearer"
    assert found(("authorization", value), target=f"/ws?token={JWT}") == (401, sentence, 'Bearer realm="broker"')


def test_two_authorization_headers_are_refused_even_if_they_are_the_same() -> None:
    twice = (("authorization", f"Bearer {JWT}"),) * 2
    assert found(*twice) == (400, "2 Authorization headers", INVALID)


@pytest.mark.parametrize(
    "offered",
    [
        [f"bearer.{JWT}"],
        [f"broker.v1, bearer.{JWT}"],
        [f"bearer.{JWT},broker.v1"],
        ["broker.v1", f"bearer.{JWT}"],
        [f"broker.base,  bearer.{JWT} , bearer.{JWT}"],
    ],
)
def test_subprotocol(offered: list[str]) -> None:
    headers = [("sec-websocket-protocol", line) for line in offered]
    assert found(*headers) == Credential(SUBPROTOCOL, JWT)
    assert found(*headers, websocket=False) is None


def test_subprotocols_that_are_none() -> None:
    assert found(("sec-websocket-protocol", f"Bearer.{JWT}, bearer, xbearer.{JWT}")) is None
    assert found(("sec-websocket-protocol", "bearer.")) == Credential(SUBPROTOCOL, "")


@pytest.mark.parametrize("websocket", [True, False])
def test_query(websocket: bool) -> None:
    assert found(target=f"/ws?userId=ann&token={JWT}", websocket=websocket) == Credential(QUERY, JWT)
    assert found(target="/ws?%74oken=a%2Bb+c", websocket=websocket) == Credential(QUERY, "a+b c")
    assert found(target="/ws?token=", websocket=websocket) == Credential(QUERY, "")


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([f"token={JWT}"], JWT),
        ([f"a=b; token={JWT}; c=d"], JWT),
        ([f'token="{JWT}"'], JWT),
        (["a=b", f"token={JWT}"], JWT),
        ([f"token={JWT}; token=other"], JWT),
        ([f"token={JWT}", "token=other"], JWT),
        (["TOKEN=x; xtoken=y; token=a=b"], "a=b"),
        (["token=\xe9"], "\xe9"),
        (['token="'], '"'),
    ],
)
def test_cookie(headers: list[str], text: str) -> None:
    credential = found(*(("cookie", line) for line in headers), cookie="token")
    assert credential == Credential(COOKIE, text)
    assert isinstance(credential, Credential)
    assert credential.is_ambient


@pytest.mark.parametrize("line", ["", "token", "token=", 'token=""', "a=token=b", "; ;=; =token"])
def test_cookies_that_are_none(line: str) -> None:
    assert found(("cookie", line), cookie="token") is None


def test_what_is_sent_on_purpose_goes_before_the_cookie() -> None:
    cookie = ("cookie", "token=c")
    for credential in (
        found(cookie, ("authorization", "Bearer a"), cookie="token"),
        found(cookie, ("sec-websocket-protocol", "bearer.a"), cookie="token"),
        found(cookie, target="/ws?token=a", cookie="token"),
    ):
        assert isinstance(credential, Credential)
        assert (credential.text, credential.is_ambient) == ("a", False)


TWO = (400, "the request has two different tokens", INVALID)


def test_two_that_differ_are_refused() -> None:
    bearer, offered = ("authorization", "Bearer a"), ("sec-websocket-protocol", "bearer.b")
    assert found(bearer, offered) == TWO
    assert found(("sec-websocket-protocol", "bearer.a, bearer.b")) == TWO
    assert found(bearer, target="/ws?token=b") == TWO
    assert found(offered, target="/ws?token=a") == TWO
    assert found(target="/ws?token=a&token=b") == TWO
    assert found(bearer, target="/ws?token=") == TWO
    assert found(bearer, ("sec-websocket-protocol", "bearer.a"), target="/ws?token=a&token=a") == Credential(
        BEARER, "a"
    )


def test_a_credential_does_not_show_its_text() -> None:
    assert repr(Credential(BEARER, JWT)) == "Credential(kind='bearer')"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["authorization", "cookie", "sec-websocket-protocol"]),
            st.text(st.characters(max_codepoint=255), max_size=30)
            | st.sampled_from(["Bearer a", "bearer.a", "token=a", 'token="', "broker.v1"]),
        ),
        max_size=4,
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
)
def test_any_request_has_one_or_none_or_is_refused(headers: list[tuple[str, str]], query: str) -> None:
    found(*headers, target=f"/ws?{query}", cookie="token")


# The log


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("/ws", "/ws"),
        ("/ws?userId=ann&channel=a:b", "/ws?userId=ann&channel=a:b"),
        ("/ws?token=abc", "/ws?token=***"),
        ("/ws?token=", "/ws?token=***"),
        ("/ws?token", "/ws?token"),
        ("/ws?a=1&token=abc&b=2", "/ws?a=1&token=***&b=2"),
        ("/ws?token=a&token=b", "/ws?token=***&token=***"),
        ("/ws?access_token=abc&TOKEN=abc&api_key=x", "/ws?access_token=***&TOKEN=***&api_key=***"),
        ("/ws?%74oken=abc&to%6Ben=abc", "/ws?%74oken=***&to%6Ben=***"),
        ("/ws?token=a?token=b=c", "/ws?token=***"),
        (f"/ws?jot={JWT}", "/ws?jot=***"),
        (f"/ws/{JWT}/x", "/ws/***/x"),
        (f"/ws?a=%3D{JWT}#x", "/ws?a=%3D***#x"),
        (f"/{KEY}?k={KEY}", "/***?k=***"),
        ("/a\r\nb\t\x00\x1b[0m\x7f\xe9 c", "/a\\r\\nb\\t\\x00\\x1b[0m\\x7f\\xe9\\x20c"),
        ("/é\u2028\ud800", "/\\xe9\\u2028\\ud800"),
        ("/" + "x" * 600, "/" + "x" * (LOGGED_CHARACTERS - 1) + "..."),
    ],
    ids=count(),
)
def test_what_the_log_shows(target: str, line: str) -> None:
    assert masked(target) == line
    try:
        data = target.encode("latin-1")
    except UnicodeEncodeError:
        return
    assert masked(data) == line


def test_a_text_that_quotes_a_secret() -> None:
    assert without_secrets(f"pages of 'https://{KEY}' may not connect") == "pages of 'https://***' may not connect"
    assert without_secrets(f'{{"why": "{JWT}", "a": "x\\n{JWT}"}}') == '{"why": "***", "a": "x\\n***"}'
    assert without_secrets("eyJust a word, bk_of_mine") == "eyJust a word, bk_of_mine"


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_token_in_the_query_is_ever_logged(before: str, behind: str) -> None:
    secret = "s3cr3tt0k3n"
    before = before.replace("#", "").replace("&", "")
    line = masked(f"/ws?{before}&token={secret}{behind.partition('&')[0]}")
    assert secret not in line
    assert line.isascii()
    assert line.isprintable()
    assert " " not in line


@pytest.mark.parametrize("piece", ["eyJ", "bk_", "eyJ.", "bk_a", "token=&", "?", "%74", "&", "\x00"])
def test_masking_is_linear(piece: str) -> None:
    target = "/?" + piece * (16384 // len(piece))
    began = time.thread_time()
    masked(target)
    assert time.thread_time() - began < 0.2
