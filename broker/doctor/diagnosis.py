"""From what a connection raises to what is wrong and what to do."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

import httpx
import trio

from broker.doctor.finding import CheckFailed

CONNECTION_ERRORS = (OSError, httpx.HTTPError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What connecting, sending and receiving may raise, besides deadlines."""


def diagnosis(error: BaseException) -> CheckFailed:
    """What `error`, one of `CONNECTION_ERRORS`, means."""
    chain = list(_chain(error))
    for inner in chain:
        if isinstance(inner, ssl.SSLCertVerificationError):
            why = inner.verify_message or str(inner)
            return CheckFailed(
                f"its certificate is refused: {why}",
                "use the host name that the certificate has, renew it, or name its authority with SSL_CERT_FILE",
            )
        if isinstance(inner, ssl.SSLError):
            return CheckFailed(f"TLS fails: {inner.reason or inner}", "write http:// if that port speaks no TLS")
        if isinstance(inner, socket.gaierror):
            return CheckFailed(f"its host name is not known: {inner.strerror}", "correct the host in the URL")
        if isinstance(inner, OSError) and inner.errno == errno.ECONNREFUSED:
            return CheckFailed(
                "connection refused: nothing listens there",
                "start the daemon with `broker serve`, or correct the URL",
            )
        if isinstance(inner, OSError) and inner.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT):
            return CheckFailed(
                f"cannot be reached: {inner.strerror or inner}",
                "correct the host in the URL, or open the way through the firewall",
            )
    if isinstance(error, httpx.ProtocolError):
        return CheckFailed(
            f"what answers there does not speak HTTP: {error}",
            "correct the port in the URL; write https:// if that port speaks TLS",
        )
    what = str(chain[-1]) or type(chain[-1]).__name__
    return CheckFailed(f"the connection broke: {what}", "look into the daemon's log, and that of what stands between")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, at any depth; the innermost last."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _chain(inner)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from _chain(cause)
