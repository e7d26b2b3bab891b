"""Whom a request comes from, as proxies tell it: tables of chains, and forged ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.forwarded import HOPS_MAX, UNKNOWN, Proxies, Whence, plain_address

PROXIES = Proxies(("10.0.0.0/8", "192.0.2.1", "fd00::/8", "unix"))
PROXY = "10.0.0.1"


def whence(*headers: tuple[str, str], peer: str | None = PROXY) -> Whence:
    return PROXIES.whence(peer, [(name.encode(), value.encode("latin-1")) for name, value in headers])


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        (None, True),
        ("10.255.255.255", True),
        ("192.0.2.1", True),
        ("::ffff:10.0.0.1", True),
        ("fd12::1", True),
        ("fd12::1%eth0", True),
        ("192.0.2.2", False),
        ("11.0.0.0", False),
        ("::1", False),
        ("unknown", False),
    ],
)
def test_who_is_trusted(peer: str | None, is_trusted: bool) -> None:
    assert PROXIES.trusts(peer) is is_trusted
    assert not Proxies().trusts(peer)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("198.51.100.7", "198.51.100.7"),
        (" 198.51.100.7\t", "198.51.100.7"),
        ("198.51.100.7:4711", "198.51.100.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:DB8::7]:4711", "2001:db8::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        # What stands left of the first who is not trusted, the client may have written itself.
        ("203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("nonsense, 198.51.100.7", "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        ("198.51.100.7, 192.0.2.1, 10.9.9.9", "198.51.100.7"),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("", UNKNOWN),
        ("unknown", UNKNOWN),
        ("_hidden", UNKNOWN),
        ("198.51.100.7, unknown", UNKNOWN),
        ("198.51.100.7, unknown, 10.2.2.2", UNKNOWN),
        ("198.51.100.7,", UNKNOWN),
        ("198.51.100", UNKNOWN),
        ("198.51.100.07", UNKNOWN),
        ("198.51.100.7:x", UNKNOWN),
        ("[2001:db8::7", UNKNOWN),
        ("[198.51.100.7]x", UNKNOWN),
        ("2001:db8::7:4711:1:2:3:4", UNKNOWN),
        ("\u00b9.1.1.1", UNKNOWN),
    ],
)
def test_x_forwarded_for(value: str, address: str) -> None:
    assert whence(("x-forwarded-for", value)) == Whence(address, None)


def test_several_lines_are_one_list() -> None:
    assert whence(("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "198.51.100.7")).address == "198.51.100.7"
    assert whence(("forwarded", "for=203.0.113.9"), ("forwarded", "for=198.51.100.7")).address == "198.51.100.7"


@pytest.mark.parametrize(
    ("value", "address", "scheme"),
    [
        ("for=198.51.100.7", "198.51.100.7", None),
        ("FOR=198.51.100.7;Proto=HTTPS;by=10.0.0.1", "198.51.100.7", "https"),
        ('for="198.51.100.7:4711";proto=http', "198.51.100.7", "http"),
        ('for="[2001:db8::7]"', "2001:db8::7", None),
        ('for="[2001:db8::7]:_port"', "2001:db8::7", None),
        ('for="198\\.51.100.7"', "198.51.100.7", None),
        ("for=203.0.113.9;proto=http, for=198.51.100.7;proto=https", "198.51.100.7", "https"),
        ("for=198.51.100.7;proto=https,for=10.2.2.2;proto=http", "198.51.100.7", "https"),
        (", ,for=198.51.100.7 , ", "198.51.100.7", None),
        ("for=198.51.100.7;proto=gopher", "198.51.100.7", None),
        ("for=unknown;proto=https", UNKNOWN, "https"),
        ("for=_hidden", UNKNOWN, None),
        ("proto=https", UNKNOWN, "https"),
        ("for=2001:db8::7", UNKNOWN, None),  # RFC 7239, 6: it must be quoted
        ("for=198.51.100.7;for=203.0.113.9", UNKNOWN, None),
        ("for = 198.51.100.7", UNKNOWN, None),
        ('for="198.51.100.7', UNKNOWN, None),
        ('for=203.0.113.9;x=", for="[2001:db8::7]"', UNKNOWN, None),  # a quote that swallows the proxy's entry
        ('for="203.0.113.9, for=198.51.100.7', UNKNOWN, None),
        ("198.51.100.7", UNKNOWN, None),
    ],
)
def test_forwarded(value: str, address: str, scheme: str | None) -> None:
    assert whence(("forwarded", value)) == Whence(address, scheme)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), Whence(PROXY, None)),
        ((("x-forwarded-proto", "https"),), Whence(PROXY, "https")),
        ((("x-forwarded-proto", "HTTPS, https"),), Whence(PROXY, "https")),
        ((("x-forwarded-proto", "http, https"),), Whence(PROXY, None)),
        ((("x-forwarded-proto", "gopher"),), Whence(PROXY, None)),
        (
            (("forwarded", "for=198.51.100.7;proto=https"), ("x-forwarded-proto", "http")),
            Whence("198.51.100.7", None),
        ),
        (
            (("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "198.51.100.7:1")),
            Whence("198.51.100.7", None),
        ),
        ((("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "198.51.100.7")), Whence(UNKNOWN, None)),
        ((("forwarded", "nonsense"), ("x-forwarded-for", "198.51.100.7")), Whence(UNKNOWN, None)),
    ],
)
def test_both_and_neither(headers: tuple[tuple[str, str], ...], expected: Whence) -> None:
    assert whence(*headers) == expected


def test_over_a_unix_socket() -> None:
    assert whence(peer=None) == Whence(None, None)
    assert whence(("x-forwarded-for", "198.51.100.7"), peer=None) == Whence("198.51.100.7", None)
    # Never taken for the proxy itself, for whom no limit holds.
    assert whence(("x-forwarded-for", "nonsense"), peer=None) == Whence(UNKNOWN, None)


def test_only_so_many_hops_are_read() -> None:
    hops = ["198.51.100.7"] + [f"10.1.1.{number}" for number in range(HOPS_MAX)]
    assert whence(("x-forwarded-for", ",".join(hops))).address == "10.1.1.0"
    assert whence(("x-forwarded-for", ",".join(hops[:HOPS_MAX]))).address == "198.51.100.7"


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_a_client_cannot_hide_behind_what_it_writes(noise: str) -> None:
    """Whatever a client wrote, the proxy's own entry on the right is what counts, or nothing is known."""
    mine = "198.51.100.7"
    assert whence(("x-forwarded-for", f"{noise}, {mine}")).address == mine
    assert whence(("forwarded", f"{noise}, for={mine}")).address in (mine, UNKNOWN)
    assert whence(("forwarded", f'{noise}, for="{mine}"')).address in (mine, UNKNOWN)
    assert whence(("forwarded", noise), ("x-forwarded-for", mine)).address in (mine, UNKNOWN)


@given(st.text(max_size=60))
def test_an_address_is_one_or_none(text: str) -> None:
    plain = plain_address(text)
    assert plain is None or plain_address(plain) == plain


def test_reading_is_linear() -> None:
    for value in ('for="' + "\\" * 15_000, "for=" + "a" * 15_000 + '"', "for=a;" * 3000, ", " * 8000, " " * 16_000):
        assert whence(("forwarded", value)).address == UNKNOWN
