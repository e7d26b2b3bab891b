"""Which pages may connect, read and use cookies: tables, and what no origin may ever get past."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.origins import ANY, LOOPBACK, Origins, is_same_origin
from broker.request import Request, RequestRefused

APP = "https://app.example.com"
BELOW = "https://*.example.com"
HOST = "broker.example.net:8000"


def request(*headers: tuple[str, str], host: str = HOST, scheme: str | None = None, method: str = "GET") -> Request:
    pairs = (("host", host), *headers)
    return Request(method, b"/", b"1.1", tuple((name.encode(), value.encode()) for name, value in pairs), scheme=scheme)


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "same"),
    [
        ("http://a.example:8000", "a.example:8000", None, True),
        ("https://a.example:8000", "a.example:8000", None, True),
        ("https://a.example", "a.example", "https", True),
        ("https://a.example", "a.example:443", "https", True),
        ("https://a.example:443", "a.example", "https", True),
        ("http://a.example", "a.example:80", "http", True),
        ("HTTP://A.Example", "a.eXample", None, True),
        ("http://[::1]:8000", "[::1]:8000", None, True),
        ("http://a.example", "a.example", "https", False),
        ("https://a.example", "a.example", "http", False),
        ("https://a.example", "a.example:80", None, False),
        ("http://a.example", "a.example:443", None, False),
        ("http://a.example:8001", "a.example:8000", None, False),
        ("http://b.a.example", "a.example", None, False),
        ("http://a.example.", "a.example", None, False),
        ("http://a.example/", "a.example", None, False),
        ("http://a.example/x", "a.example", None, False),
        ("http://user@a.example", "a.example", None, False),
        ("http://a.example\\@b.example", "b.example", None, False),
        ("http://a.example ", "a.example", None, False),
        ("http://a.example\n", "a.example", None, False),
        ("null", "null", None, False),
        ("", "", None, False),
        ("http://", "", None, False),
        ("chrome-extension://abc", "abc", None, False),
        ("file://", "", None, False),
    ],
)
def test_same_origin(origin: str, host: str, scheme: str | None, same: bool) -> None:
    assert is_same_origin(origin, host, scheme) is same
    assert Origins().permits(origin, host, scheme) is same
    assert Origins().allows_credentials(origin, host, scheme) is same


@pytest.mark.parametrize(
    ("origin", "allowed", "is_listed"),
    [
        (APP, (APP,), True),
        (f"{APP}:443", (APP,), True),
        ("HTTPS://APP.example.com", (APP,), True),
        (APP, (BELOW,), True),
        ("https://a.b.example.com", (BELOW,), True),
        ("https://a.example.com:8443", ("https://*.example.com:8443",), True),
        ("capacitor://localhost", ("capacitor://localhost",), True),
        ("http://localhost:5173", (LOOPBACK,), True),
        ("https://[::1]", (LOOPBACK,), True),
        (APP, (), False),
        (APP, (ANY,), False),
        ("null", (ANY, APP, BELOW, LOOPBACK), False),
        ("https://example.com", (BELOW,), False),
        ("https://evil-example.com", (BELOW,), False),
        ("https://example.com.evil.org", (BELOW,), False),
        ("https://a.example.com.evil.org", (BELOW,), False),
        ("https://.example.com", (BELOW,), False),
        ("https://a..example.com", (BELOW,), False),
        ("https://*.example.com", (BELOW,), False),
        ("https://a.example.com:8443", (BELOW,), False),
        ("https://a.example.com", ("https://*.example.com:8443",), False),
        ("http://a.example.com", (BELOW,), False),
        ("https://a.example.com.", (BELOW,), False),
        ("https://evil.org/.example.com", (BELOW,), False),
        ("https://evil.org#.example.com", (BELOW,), False),
        ("https://evil.org?.example.com", (BELOW,), False),
        ("https://a@b.example.com", (BELOW,), False),
        ("https://exampleXcom", ("https://example.com",), False),
        ("http://localhost.evil.example", (LOOPBACK,), False),
        ("http://127.0.0.1.evil.example", (LOOPBACK,), False),
        ("http://[::1", (LOOPBACK,), False),
        ("https://app.example.c\u00f6m", (BELOW,), False),
    ],
)
def test_the_list(origin: str, allowed: tuple[str, ...], is_listed: bool) -> None:
    origins = Origins(allowed)
    assert origins.lists(origin) is is_listed
    assert origins.allows_credentials(origin, HOST, None) is is_listed
    assert origins.permits(origin, HOST, None) is (is_listed or ANY in allowed)


@given(st.text(st.sampled_from("aA.-_*:/@#?\\%[]\x00\r\n 0com"), max_size=30))
def test_nothing_before_or_behind_makes_a_foreign_page_one_of_ours(noise: str) -> None:
    """Whatever is allowed by the wildcard has a host of whole labels that ends as the pattern says."""
    origins = Origins((BELOW,))
    for origin in (f"https://{noise}.example.com", f"https://a.example.com{noise}", f"{noise}https://a.example.com"):
        if origins.lists(origin):
            assert re.fullmatch(r"https://([a-z0-9_-]+\.)+example\.com(:0*443)?", origin.lower()), origin


@pytest.mark.parametrize(
    ("origin", "allowed", "with_credentials", "headers"),
    [
        (None, (ANY,), False, {}),
        (APP, (), True, {}),
        (APP, (ANY,), False, {"Access-Control-Allow-Origin": "*"}),
        (APP, (ANY,), True, {"Access-Control-Allow-Origin": "*"}),
        (APP, (APP,), False, {"Access-Control-Allow-Origin": APP, "Vary": "Origin"}),
        (
            APP,
            (BELOW,),
            True,
            {"Access-Control-Allow-Origin": APP, "Vary": "Origin", "Access-Control-Allow-Credentials": "true"},
        ),
        (
            APP,
            (ANY, APP),
            True,
            {"Access-Control-Allow-Origin": APP, "Vary": "Origin", "Access-Control-Allow-Credentials": "true"},
        ),
        ("https://b.example", (ANY, APP), True, {"Access-Control-Allow-Origin": "*", "Vary": "Origin"}),
        ("https://b.example", (APP,), True, {"Vary": "Origin"}),
        ("null", (APP,), True, {"Vary": "Origin"}),
        (
            "http://localhost:5173",
            (LOOPBACK,),
            False,
            {"Access-Control-Allow-Origin": "http://localhost:5173", "Vary": "Origin"},
        ),
        ("http://[::1", (LOOPBACK,), False, {"Vary": "Origin"}),
    ],
)
def test_who_may_read(
    origin: str | None, allowed: tuple[str, ...], with_credentials: bool, headers: dict[str, str]
) -> None:
    assert Origins(allowed, with_credentials).cors_headers(origin) == headers


@given(
    st.lists(st.sampled_from((ANY, APP, BELOW, LOOPBACK)), unique=True).map(tuple),
    st.sampled_from((APP, "null", "", "http://localhost", "https://evil.example", "\r\nX: y", "*")),
    st.booleans(),
)
def test_never_a_star_together_with_credentials_nor_a_new_line(
    allowed: tuple[str, ...], origin: str, with_credentials: bool
) -> None:
    headers = Origins(allowed, with_credentials).preflight_headers(origin, "GET")
    if headers.get("Access-Control-Allow-Origin") == "*":
        assert "Access-Control-Allow-Credentials" not in headers
    assert not re.search(r"[\r\n]", "".join(headers.values()))


def test_a_preflight_says_what_may_be_sent_only_to_who_may() -> None:
    assert Origins((APP,)).preflight_headers(APP, "GET, POST") == {
        "Access-Control-Allow-Origin": APP,
        "Vary": "Origin",
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "Content-Type, Last-Event-ID, Cache-Control, Authorization, Idempotency-Key",
        "Access-Control-Max-Age": "600",
    }
    assert Origins((APP,)).preflight_headers("https://b", "GET") == {"Vary": "Origin"}


@pytest.mark.parametrize(
    ("headers", "scheme", "counts"),
    [
        ((("origin", f"https://{HOST}"),), "https", True),
        ((("origin", APP),), None, True),
        ((("sec-fetch-site", "same-origin"),), None, True),
        ((("sec-fetch-site", "none"),), None, True),
        ((("referer", f"http://{HOST}/page?x=1"),), None, True),
        ((("referer", f"{APP}/page"),), None, True),
        ((), None, False),
        ((("origin", f"http://{HOST}"),), "https", False),
        ((("origin", "https://evil.example"),), None, False),
        ((("origin", "null"),), None, False),
        # What says the most decides: a page can choose its Referer's length, and older browsers send no Sec-Fetch-Site.
        ((("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")), None, False),
        ((("sec-fetch-site", "cross-site"), ("referer", f"http://{HOST}/")), None, False),
        ((("sec-fetch-site", "same-site"),), None, False),
        ((("referer", f"http://evil.example/http://{HOST}/"),), None, False),
        ((("referer", HOST),), None, False),
        ((("referer", ""),), None, False),
    ],
)
@pytest.mark.parametrize("allowed", [(APP,), (APP, ANY)])
def test_when_a_cookie_counts(
    headers: tuple[tuple[str, str], ...], scheme: str | None, counts: bool, allowed: tuple[str, ...]
) -> None:
    assert Origins(allowed, True).cookie_may_count(request(*headers, scheme=scheme)) is counts


def refused(check: object, asked: Request) -> tuple[int, str]:
    assert callable(check)
    with pytest.raises(RequestRefused) as caught:
        check(asked)
    assert "Access-Control-Allow-Origin" not in caught.value.headers
    return caught.value.status, caught.value.detail


def test_a_request_of_a_page() -> None:
    origins = Origins((APP,))
    for allowed in (request(), request(("origin", APP)), request(("origin", f"http://{HOST}"))):
        origins.check(allowed)
    assert refused(origins.check, request(("origin", "https://evil.example"))) == (
        403,
        "pages of 'https://evil.example' may not connect",
    )
    assert refused(origins.check, request(("origin", ""))) == (403, "pages of '' may not connect")
    assert refused(origins.check, request(("origin", APP), ("origin", APP))) == (403, "2 Origin headers")
    hostile = "\x1b[2J" + "x" * 10_000
    assert refused(origins.check, request(("origin", hostile))) == (403, f"pages of {hostile[:80]!a} may not connect")
    Origins((ANY,)).check(request(("origin", "null")))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LOCALHOST",
        "app.localhost:1",
        "broker:8000",
        "localhost.:8000",
        "127.0.0.1:8000",
        "[::1]:8000",
        "192.0.2.7",
        "",
        "app.example.com",
        "app.example.com:8000",
        "a.example.org",
    ],
)
def test_a_host_that_is_this_machine(host: str) -> None:
    Origins((APP, "http://*.example.org")).check_host(request(host=host))
    Origins((ANY,)).check_host(request(host="evil.example"))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "0x7f.1",
        "evil.example.",
        ".",
        "a b.c",
        "example.org",
        "a.app.example.com",
    ],
)
def test_a_name_that_was_bound_to_this_machine_by_somebody_else(host: str) -> None:
    """DNS rebinding: for the browser, the page and the daemon are then one origin."""
    assert refused(Origins((APP, "http://*.example.org", LOOPBACK)).check_host, request(host=host)) == (
        403,
        f"the Host header {host!a} does not name this machine",
    )
