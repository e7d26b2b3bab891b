"""Who may connect, as the settings name them: networks of proxies, and origins of web pages.

Nothing is looked up.
"""

from __future__ import annotations

import re
from ipaddress import ip_network

from broker.config.secret import shown

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://((\*\.)?[a-z0-9_.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?", re.ASCII)


def check_web_origin(origin: str) -> None:
    """Refuse what is no origin as browsers send it, none with `*.` before a host, and not `*`.

    Raises:
        ValueError: a path, a slash at the end, capitals, no scheme.
    """
    if origin == "*":
        return
    match = _ORIGIN.fullmatch(origin)
    if not match or int(match["port"] or 0) > 65535:
        raise ValueError(
            f"{shown(origin)} is not a web origin; write scheme://host or scheme://host:port "
            "in lower case with nothing behind it, such as https://app.example.com or https://*.example.com, or *"
        )


def check_network(text: str) -> None:
    """Refuse what is no IP address, no network and not `unix`.

    Raises:
        ValueError: so it is, or an address inside a network stands in place of the network's own.
    """
    if text == "unix":
        return
    try:
        # A zone (fe80::1%eth0) is this machine's own name for a cable; peers are compared without.
        network = None if "%" in text else ip_network(text, strict=False)
    except ValueError:
        network = None
    if network is None:
        raise ValueError(f"{shown(text)} is no network; write 10.0.0.5, 10.0.0.0/8, fd00::/8 or unix")
    if "/" in text and str(network.network_address) != str(ip_network(text.partition("/")[0]).network_address):
        raise ValueError(f"{shown(text)} is an address inside a network; write {network} for all of it")
