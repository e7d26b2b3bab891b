"""The host of a JWK set: asked over HTTPS, and not believed further than that.

Laws: certificates are checked; redirects are not followed, and nothing compressed is unpacked, so that what
arrives is what is weighed. Whatever the host does, hanging, trickling or sending junk, ends within
`FETCH_SECONDS` as `KeysMissing`. Bound: `SET_MAX_BYTES`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import trio
from attrs import define, field

from broker import __version__
from broker.auth.keyring import Keyring

SET_MAX_BYTES = 1024 * 1024
FETCH_SECONDS = 10.0
_CLOSE_SECONDS = 1.0


class KeysMissing(Exception):
    """A JWK set that could not be had. `str()` says why, in one line."""


@define(eq=False)
class KeyHost:
    """Asks one URL, each time over a connection of its own."""

    _url: str
    _trusted: ssl.SSLContext | None = field(init=False, default=None)

    async def fetch(self) -> Keyring:
        """The keys of the set as it is now.

        Raises:
            KeysMissing: there is no usable set within `FETCH_SECONDS`.
        """
        try:
            with trio.fail_after(FETCH_SECONDS):
                return Keyring.from_jwks(await self._read())
        except trio.TooSlowError:
            raise KeysMissing(f"no whole answer within {FETCH_SECONDS:g} s") from None
        except ValueError as error:
            raise KeysMissing(f"the answer {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            raise KeysMissing(_told(error)) from None

    async def _read(self) -> bytes:
        is_local = urlsplit(self._url).scheme == "http"
        if self._trusted is None:
            # Reading all public certificates takes a while. Without TLS none is trusted.
            self._trusted = (
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                if is_local
                else await trio.to_thread.run_sync(_trusted_certificates)
            )
        # The environment may name a proxy for the way out; the way to this machine needs none.
        http = httpx.AsyncClient(verify=self._trusted, trust_env=not is_local, timeout=None, follow_redirects=False)
        headers = {
            "accept": "application/jwk-set+json, application/json",
            "accept-encoding": "identity",
            "user-agent": f"broker/{__version__}",
        }
        async with http, http.stream("GET", self._url, headers=headers) as response:
            if response.is_redirect:
                raise KeysMissing(f"it answers {response.status_code}; redirects are not followed, write the last URL")
            if response.status_code != 200:
                raise KeysMissing(f"it answers {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise KeysMissing("its answer is compressed, though nobody asked for that")
            body = response.aiter_raw()
            try:
                return await _whole(body)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_SECONDS):
                    await _close(response, body)


async def _whole(body: AsyncIterator[bytes]) -> bytes:
    data = bytearray()
    async for piece in body:
        data += piece
        if len(data) > SET_MAX_BYTES:
            raise KeysMissing(f"its answer is larger than {SET_MAX_BYTES} bytes")
    return bytes(data)


async def _close(response: httpx.Response, body: AsyncIterator[bytes]) -> None:
    """Close the connection, and end the generators that the body is made of, of which trio would complain: the error
    of reading what is closed starts in the innermost."""
    try:
        await response.aclose()
        async for _ in body:
            pass
    except (httpx.HTTPError, httpx.StreamError):
        pass


def _told(error: Exception) -> str:
    """One line. What is wrong with a certificate is said by a cause of the cause."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    words = f"{type(error).__name__}: {error}" if cause is None else f"{type(error).__name__}: {cause}"
    return ascii(" ".join(words.split())[:300])[1:-1]


def _trusted_certificates() -> ssl.SSLContext:
    """Those of SSL_CERT_FILE and SSL_CERT_DIR; without these, the public ones and the machine's own."""
    context = httpx.create_ssl_context()
    if not os.environ.get("SSL_CERT_FILE") and not os.environ.get("SSL_CERT_DIR"):
        context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
