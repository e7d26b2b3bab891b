"""Headers that every HTTP answer has, so that no browser makes more of it than it is.

An answer is data, never a page: nothing in it is loaded or run, no frame shows it, nobody keeps it, and no page of
another site embeds it. CORS is not concerned: what a page may read is said by `Origins`. What is a page brings its own
policy (`web/pages.py`), which these leave as it is.

Source: WHATWG Fetch, 3.6 (nosniff) and 3.7 (Cross-Origin-Resource-Policy); W3C CSP 3; RFC 9111, 5.2.2.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NOSNIFF = "X-Content-Type-Options: nosniff"
SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
)
