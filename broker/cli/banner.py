"""What `broker serve` prints once it serves: what listens where, and the lines to paste to see it work."""

from __future__ import annotations

import os
import shutil
import sys
from shlex import quote
from urllib.parse import unquote, urlsplit

from broker import __version__
from broker.config.address import Address
from broker.config.names import variable
from broker.config.secret import mask_url
from broker.config.sections import Config
from broker.daemon import Ready
from broker.events import JobProgress

_CHANNEL = "job_progress:42"
_EVENT = '{"type":"job_progress","jobId":"42","progress":0.5}'


def banner(ready: Ready, *, dev: bool) -> str:
    """The whole text. Every line that can be pasted works as it is, in a shell of this machine."""
    addresses = [Address.parse(address) for address in ready.addresses]
    first = addresses[0]
    is_tls = _is_tls(first, ready.config)
    lines = [
        f"broker {__version__} listens on {', '.join(dict.fromkeys(ready.addresses))}",
        f"  WebSocket   {_url('wss' if is_tls else 'ws', first)}/ws",
        f"  SSE         {_url('https' if is_tls else 'http', first)}/api/stream?channel=NAME",
        f"  Redis       {_redis(ready)}",
        f"  Who         {_who(addresses, ready.config)}",
        f"  Clients     {ready.max_connections} at most, by the open-file limit and clients.max_connections",
    ]
    if ready.config.console.http != "off" and not first.path:
        lines.insert(3, f"  Console     {_url('https' if is_tls else 'http', first)}/")
    if dev:
        lines.append("  Demo        events on job_progress:demo, video_render:demo, campaign_metrics:demo and others")
    demo = [f"  {_curl(first, ready.config)}/api/stream?channel=campaign_metrics:demo'"] if dev else []
    lines += [
        "",
        "See it work. Subscribe in one terminal" + (", to demo events or to events of yours:" if dev else ":"),
        *demo,
        f"  {_curl(first, ready.config)}/api/stream?channel={_CHANNEL}'",
        "Publish in another, in any of these ways" + (", with your password for ***:" if _is_masked(ready) else ":"),
        *_publishing(ready),
        "",
    ]
    return "\n".join(lines)


def _url(scheme: str, address: Address) -> str:
    if address.path:
        return f"{scheme}+{address}:"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return f"{scheme}://{Address(host=host, port=address.port)}"


def _is_tls(address: Address, config: Config) -> bool:
    tls = config.listen_tls
    return bool(tls.certificate) and not address.path and (not tls.addresses or str(address) in tls.addresses)


def _curl(address: Address, config: Config) -> str:
    # A certificate for development is not one that curl knows.
    options = (" -k" if _is_tls(address, config) else "") + (
        ' -H "Authorization: Bearer $TOKEN"' if config.auth.is_on else ""
    )
    if address.path:
        return f"curl -N{options} --unix-socket {quote(address.path)} 'http://localhost"
    return f"curl -N{options} '{_url('https' if _is_tls(address, config) else 'http', address)}"


def _redis(ready: Ready) -> str:
    if ready.embedded is not None:
        return f"embedded Valkey at {ready.embedded.service_url}; its data is gone when the daemon exits"
    state = "connected" if ready.redis_connected else "NOT REACHABLE YET; the daemon keeps trying"
    return f"{mask_url(ready.config.redis.url)}, {state}"


def _who(addresses: list[Address], config: Config) -> str:
    if config.auth.is_on:
        if config.rules.anonymous_subscribe:
            return "who has a token, what it and [rules] allow; others, what rules.anonymous_subscribe allows"
        return "who has a token (`broker token create --user ann` makes one), what it and [rules] allow"
    if all(address.is_loopback for address in addresses):
        return "anyone on this machine may subscribe to everything; nobody else can connect"
    return "ANYONE who reaches these addresses may subscribe to everything: authentication is off (auth.mode)"


def _service_url(ready: Ready) -> str:
    """Where services publish."""
    return ready.embedded.service_url if ready.embedded is not None else ready.config.redis.url


def _is_masked(ready: Ready) -> bool:
    return mask_url(_service_url(ready)) != _service_url(ready)


def _event(ready: Ready) -> str:
    """A line to paste that arrives."""
    if ready.config.declared_types["job_progress"].validate != "event":
        return _EVENT
    event = JobProgress(job_id="42", status="processing", stage="rendering", progress=0.5, message="half way")
    return event.encode().decode()


def _publishing(ready: Ready) -> list[str]:
    event = _event(ready)
    prefix = ready.config.redis.channel_prefix
    channel = prefix + _CHANNEL
    shown = mask_url(_service_url(ready))
    # `broker pub` adds the prefix that it finds in its environment.
    environment = f"{variable('redis.channel_prefix')}={quote(prefix)} " if prefix else ""
    split = urlsplit(shown)
    if split.scheme == "unix":
        cli = f"redis-cli -s {quote(unquote(split.path))}"
    elif shown == f"redis://127.0.0.1:{split.port}{split.path}":
        cli = f"redis-cli -p {split.port}"
    else:
        cli = f"redis-cli -u {quote(shown)}"
    return [
        f"  {environment}{_program()} pub --redis {quote(shown)} {_CHANNEL} '{event}'",
        f"  {cli} PUBLISH {quote(channel)} '{event}'",
        f"  {_near(sys.executable)}   (any Python with redis-py), and there:",
        # Python takes no margin.
        "import redis",
        f"r = redis.Redis.from_url({shown!r})",
        f"r.publish({channel!r}, {event!r})",
    ]


def _program() -> str:
    """This program as a person in the same folder would call it."""
    path = sys.argv[0]
    if os.path.basename(path) == "__main__.py":
        return f"{_near(sys.executable)} -m broker"
    found = shutil.which("broker")
    return "broker" if found and os.path.realpath(found) == os.path.realpath(path) else _near(path)


def _near(path: str) -> str:
    """A path as a shell takes it: from here where it is below, else whole. Without a slash it would be looked up."""
    below = os.path.relpath(path)
    if below.startswith(".."):
        return quote(os.path.abspath(path))
    return quote(below if "/" in below else f"./{below}")
