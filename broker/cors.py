"""Which web pages may read the daemon's HTTP answers (CORS). Source: WHATWG Fetch, 3.2."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
LOOPBACK = "loopback"
_REQUEST_HEADERS = "Content-Type, Last-Event-ID, Cache-Control, Authorization, Idempotency-Key"


def cors_headers(origin: str | None, allowed: Collection[str]) -> dict[str, str]:
    """The headers for an answer to a page of `origin`; empty where the page may not read it.

    Args:
        allowed: origins as browsers send them; `*` is any; `loopback` is any port of this machine.
    """
    if origin is None or not allowed:
        return {}
    if "*" in allowed:
        return {"Access-Control-Allow-Origin": "*"}
    if origin in allowed or (LOOPBACK in allowed and _is_loopback(origin)):
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
    return {"Vary": "Origin"}


def preflight_headers(origin: str | None, allowed: Collection[str], methods: str) -> dict[str, str]:
    """The headers that answer a preflight request."""
    headers = cors_headers(origin, allowed)
    if "Access-Control-Allow-Origin" in headers:
        headers |= {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": "600",
        }
    return headers


def _is_loopback(origin: str) -> bool:
    try:
        return urlsplit(origin).hostname in LOOPBACK_HOSTS
    except ValueError:
        return False
