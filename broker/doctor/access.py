"""The checks of who gets in: authentication, foreign web pages, the daemon's certificate.

Nothing is sent here that names anybody but the token that was given, and that only where it is asked for.
"""

from __future__ import annotations

import math
import ssl
from datetime import UTC, datetime
from typing import Any

import httpx
import trio

from broker.doctor.finding import CheckFailed, CheckSkipped
from broker.doctor.target import Target
from broker.doctor.web import STATS_PATH, refusal_of

FOREIGN_PAGE = "https://doctor.invalid"
TOKEN_ADVICE = "give one with --token, or in BROKER_TOKEN; `broker token create` makes tokens"
_LEAST_OF_LIFE = 0.1  # of a certificate: tools renew it long before


class NoEntry(CheckFailed):
    """Clients need a token, and there is none that counts."""


async def check_authentication(client: httpx.AsyncClient, target: Target) -> str:
    """Whether clients need a token, and whether ours counts.

    Raises:
        NoEntry: they do, and there is none, or it does not count.
        CheckSkipped: the answer does not tell.
    """
    without = await client.get(STATS_PATH, params={"clients": 0})
    if without.status_code == 200:
        return "off: nobody needs a token" + ("" if target.token is None else ", and none is looked at")
    if without.status_code != 401:
        raise CheckSkipped("cannot be told; see what stats says")
    if target.token is None:
        raise NoEntry("on: clients need a token, and none was given", TOKEN_ADVICE)
    response = await client.get(STATS_PATH, params={"clients": 0}, headers=target.headers)
    if response.status_code == 401:
        refused = refusal_of(response)
        raise NoEntry(f"on, and the token does not count: {refused.text}", TOKEN_ADVICE)
    return "on, and the token counts"


async def check_origin(client: httpx.AsyncClient) -> str:
    """Whether a page of some other site is refused.

    Raises:
        CheckFailed: it is not, and the daemon does not say that every page may connect.
    """
    response = await client.get("/health", headers={"Origin": FOREIGN_PAGE})
    if response.status_code == 403:
        return "a page of another site is refused"
    if response.status_code != 200:
        raise refusal_of(response)
    if response.headers.get("access-control-allow-origin") == "*":
        return "any page may connect, as listen.allowed_origins has *"
    raise CheckFailed(
        "a page of another site may connect",
        "let the proxy in between pass Origin on unchanged; see listen.allowed_origins, and the daemon's version",
    )


async def check_tls(target: Target) -> str:
    """Which TLS is spoken, and for how long the certificate counts.

    Raises:
        CheckFailed: it will be over soon.
        OSError, trio.BrokenResourceError: as `Target.dial`.
    """
    if target.tls is None:
        return "none: the URL is http" + ("" if target.token is None else ", and the token goes in the clear")
    stream = await target.dial()
    try:
        assert isinstance(stream, trio.SSLStream)
        certificate: dict[str, Any] = stream.getpeercert()
        version = stream.version()
    finally:
        await trio.aclose_forcefully(stream)
    begin, end = (ssl.cert_time_to_seconds(certificate[name]) for name in ("notBefore", "notAfter"))
    left = end - datetime.now(UTC).timestamp()
    days = math.floor(left / 86400)
    text = f"{version}, the certificate counts for {days} day{'' if days == 1 else 's'} more"
    if left < _LEAST_OF_LIFE * (end - begin):
        raise CheckFailed(
            f"{text}, less than a tenth of its time", "renew it; the daemon reads its files again by itself"
        )
    return text
