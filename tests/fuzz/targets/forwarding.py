"""`Forwarded` and `X-Forwarded-*`: whatever a client wrote into them, an address or `unknown` comes of it."""

from __future__ import annotations

from ipaddress import ip_address

from broker.forwarded import UNKNOWN, Proxies
from tests.fuzz.target import Target

PROXIES = Proxies(("127.0.0.1", "10.0.0.0/8", "fd00::/8"))
PEER = "10.0.0.9"


def check(data: bytes) -> str:
    """A header a line, `name: value`."""
    headers = []
    for line in data.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            headers.append((name.strip().lower(), value.strip(b" \t\r")))
    whence = PROXIES.whence(PEER, headers)
    assert whence.scheme in (None, "http", "https")
    if whence.address not in (UNKNOWN, PEER):
        assert whence.address is not None
        # As a socket would tell it: the limits by address compare texts.
        assert str(ip_address(whence.address)) == whence.address and "%" not in whence.address
    # What a client writes comes left of what a proxy adds, and never changes whom the proxy names.
    added = [*headers, (b"x-forwarded-for", b"192.0.2.7")]
    if not any(name == b"forwarded" for name, _ in headers):
        assert PROXIES.whence(PEER, added).address == "192.0.2.7"
    added = [*headers, (b"forwarded", b"for=192.0.2.7")]
    if not any(name == b"x-forwarded-for" for name, _ in headers):
        assert PROXIES.whence(PEER, added).address in ("192.0.2.7", UNKNOWN)
    known = "peer" if whence.address == PEER else "unknown" if whence.address == UNKNOWN else "client"
    return f"{known} {whence.scheme}"


TARGET = Target(
    "forwarding",
    check,
    (
        b"X-Forwarded-For: 192.0.2.1, 10.0.0.1",
        b"X-Forwarded-For: 192.0.2.1\nX-Forwarded-For: 10.0.0.1:80\nX-Forwarded-Proto: https",
        b'Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43, for="[fd00::1]:4711"',
        b'Forwarded: for="[2001:db8::1%eth0]:_p", for=unknown;host="a\\"b,;=c"',
        b"Forwarded: for=192.0.2.1\nX-Forwarded-For: 192.0.2.2",
        b"Forwarded: for=_hidden, for=10.0.0.1",
        b"X-Forwarded-For: " + b"10.0.0.1, " * 40 + b"10.0.0.2",
        b'Forwarded: for="' + b"\\" * 500,
        b"X-Other: a",
    ),
    (
        b"Forwarded: ", b"X-Forwarded-For: ", b"X-Forwarded-Proto: https", b"for=", b"proto=", b"by=", b"host=", b";",
        b",",
        b'"', b"\\", b"[", b"]", b"::1", b"::ffff:10.0.0.1", b"127.0.0.1", b"unknown", b"_x", b"\n", b"for=for=", b"=",
        b"0x7f.1", b"2130706433", b"%25", b"for=a;for=b",
    ),
    frozenset({"client None", "client https", "unknown None", "peer None"}),
)  # fmt: skip
