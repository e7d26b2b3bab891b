"""Credentials: where in a request the token or API key is, and how a request is logged without it.

    Authorization: Bearer <token>
    Sec-WebSocket-Protocol: broker.base, bearer.<token>     only in a WebSocket handshake
    GET /ws?token=<token>
    Cookie: <auth.cookie>=<token>                           last: browsers send it unasked

Laws: what is there and not readable is refused, never passed over; two that differ are refused, except that any
of the others goes before the cookie. No message holds any part of one.

A browser fails a WebSocket whose answer chooses none of the subprotocols that its page offered, where RFC 6455 lets
it go on. So a page offers `broker.v1` or `broker.base` beside its token, for the handshake to choose; the answer
then does not repeat the token. What is chosen is the handshake's business.

Values; no I/O. Source: RFC 6750, 2 and 3 (bearer tokens); RFC 6455, 4.1; WHATWG WebSockets, 3 (a subprotocol must
be chosen where one was offered); RFC 6265, 4.2 and 5.4 (cookies).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote_plus

from attrs import field, frozen

from broker.config.access import Auth
from broker.request import Request, RequestRefused

BEARER = "bearer"
SUBPROTOCOL = "subprotocol"
QUERY = "query"
COOKIE = "cookie"

MASK = "***"
LOGGED_CHARACTERS = 512
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_SUBPROTOCOL_PREFIX = b"bearer."
_QUERY_NAME = "token"
_SECRET_NAME = re.compile(r"token|secret|passw|api_?key|jwt", re.IGNORECASE)
# What looks like a token or an API key is one, wherever somebody put it. Linear: what fails, fails within 43 steps.
_LOOKS_SECRET = re.compile(r"eyJ[A-Za-z0-9_.-]{12,}|bk_[A-Za-z0-9_.-]{43,}")
_NOT_PRINTABLE = re.compile(r"[^!-~]")


@frozen
class Credential:
    """A token or API key as it came.

    Args:
        kind: `BEARER`, `SUBPROTOCOL`, `QUERY` or `COOKIE`.
    """

    kind: str
    text: str = field(repr=False)

    @property
    def is_ambient(self) -> bool:
        """Whether a browser sends it for any page that asks: then the page's origin must be looked at."""
        return self.kind == COOKIE


def credential_of(request: Request, section: Auth) -> Credential | None:
    """The credential of a request; None where there is none.

    Raises:
        RequestRefused: 400 where there are two or it cannot be read, 401 for another scheme than Bearer.
    """
    found = list(_explicit(request))
    if len({credential.text for credential in found}) > 1:
        raise _refused(400, "the request has two different tokens", "Send one token, in one place.")
    if found:
        return found[0]
    return _cookie(request, section.cookie) if section.cookie else None


def masked(target: bytes | str) -> str:
    """A request target fit for a line of a log: its tokens masked, ASCII without controls, cut."""
    text = target.decode("latin-1") if isinstance(target, bytes) else target
    path, mark, query = text.partition("?")
    if mark:
        text = f"{path}?{'&'.join(map(_masked_field, query.split('&')))}"
    text = _NOT_PRINTABLE.sub(lambda match: ascii(match[0])[1:-1].replace(" ", "\\x20"), without_secrets(text))
    return text if len(text) <= LOGGED_CHARACTERS else text[:LOGGED_CHARACTERS] + "..."


def without_secrets(text: str) -> str:
    """A text in which whatever looks like a token or an API key is masked."""
    return _LOOKS_SECRET.sub(MASK, text)


def _masked_field(field: str) -> str:
    name, equals, _ = field.partition("=")
    # The name as it is read, so that %74oken is masked too.
    return f"{name}={MASK}" if equals and _SECRET_NAME.search(unquote_plus(name)) else field


def _explicit(request: Request) -> Iterator[Credential]:
    """What a client sends on purpose."""
    headers = [value for name, value in request.headers if name == b"authorization"]
    if len(headers) > 1:
        raise _refused(400, f"{len(headers)} Authorization headers", "Send one: Authorization: Bearer <token>.")
    if headers:
        yield Credential(BEARER, _bearer(headers[0]))
    if request.upgrades_to_websocket:
        offered = (
            part.strip()
            for name, value in request.headers
            if name == b"sec-websocket-protocol"
            for part in value.split(b",")
        )
        for protocol in offered:
            if protocol.startswith(_SUBPROTOCOL_PREFIX):
                yield Credential(SUBPROTOCOL, protocol.removeprefix(_SUBPROTOCOL_PREFIX).decode("latin-1"))
    yield from (Credential(QUERY, value) for name, value in request.query() if name == _QUERY_NAME)


def _bearer(value: bytes) -> str:
    found = _BEARER.fullmatch(value.strip())
    if found is not None:
        return found[1].decode()
    if value.strip().lower().partition(b" ")[0] == b"bearer":
        raise _refused(400, "the Authorization header has no readable token", "Send Authorization: Bearer <token>.")
    raise _refused(401, "the Authorization header is not of the scheme Bearer", "Send Authorization: Bearer <token>.")


def _cookie(request: Request, cookie: str) -> Credential | None:
    """The first cookie of that name: of several, browsers send the most specific one first. Empty, it is none."""
    for name, value in request.headers:
        for pair in value.decode("latin-1").split(";") if name == b"cookie" else ():
            key, equals, text = pair.strip(" \t").partition("=")
            if equals and key == cookie:
                if len(text) >= 2 and text[0] == text[-1] == '"':
                    text = text[1:-1]
                return Credential(COOKIE, text) if text else None
    return None


def _refused(status: int, detail: str, hint: str) -> RequestRefused:
    error = "" if status == 401 else ', error="invalid_request"'
    return RequestRefused(status, detail, hint, {"WWW-Authenticate": f'Bearer realm="broker"{error}'})
