"""The settings: one frozen class a section, every one with its unit, default, bounds and meaning.

Everything that shows settings is made from these classes: `conf/broker.toml`, the table in
`docs/settings.md`, the environment variables and the command line's help. A part of the daemon is
given its own section and no other.

Source of the shape: a section's name is its TOML table, a field's name its key; the environment
variable is `BROKER_<SECTION>_<KEY>`. Channel types have a table each: `types` defines those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Attribute, field, frozen

from broker.config.access import Auth, Limits, ListenTls, Rules
from broker.config.setting import setting
from broker.config.types import BUILT_IN_TYPES, TypeOptions

KIB = 1024
MIB = 1024 * 1024


@frozen
class Listen:
    """Where clients connect, and what they may send before the daemon knows who they are."""

    addresses: tuple[str, ...] = setting(
        ("127.0.0.1:8000",), "Addresses to listen on: HOST:PORT, [IPV6]:PORT or unix:/path."
    )
    backlog: int = setting(4096, "Connections that the kernel holds until they are accepted.", least=1, most=65535)
    head_max_bytes: int = setting(16 * KIB, "The largest request head; more is answered 431.", least=1 * KIB, most=MIB)
    head_seconds: float = setting(8.0, "The longest a request head may take to arrive; then 408.", least=0.1)
    body_max_bytes: int = setting(MIB, "The largest request body; more is answered 413.", least=0)
    body_seconds: float = setting(8.0, "The longest a request body may take to arrive; then 408.", least=0.1)
    idle_seconds: float = setting(75.0, "How long a kept-alive HTTP connection may rest between requests.", least=0.1)
    write_seconds: float = setting(
        10.0, "The longest an HTTP answer may wait for its reader; then the connection is dropped.", least=0.1
    )
    dead_seconds: float = setting(
        90.0,
        "How long a peer may acknowledge or take nothing of what it was sent before the kernel gives it up, on Linux; "
        "more than clients.patience_seconds, which counts from later. 0: what the kernel does by itself, which takes a "
        "quarter of an hour.",
        least=0,
        most=86_400,
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        "Web origins besides the daemon's own whose pages may connect and read its answers, such as "
        "https://app.example.com or https://*.example.com; * is any, but then no cookies are taken.",
    )
    trusted_proxies: tuple[str, ...] = setting(
        (),
        "Proxies whose word is taken for where a client comes from (X-Forwarded-For, Forwarded, PROXY protocol): "
        "addresses, networks such as 10.0.0.0/8, or unix for whoever connects to a unix socket.",
    )
    proxy_protocol: tuple[str, ...] = setting(
        (),
        "Addresses to listen on where every connection begins with a PROXY protocol header, version 1 or 2; they are "
        "written as in addresses, and are for trusted_proxies only.",
    )


@frozen
class Redis:
    """Where events come from."""

    url: str = setting(
        "",
        "redis://, rediss:// or unix:// URL; REDIS_URL is read too. "
        "Empty: an embedded Valkey, while listening on loopback only.",
        secret="url",
    )
    channel_prefix: str = setting("", "Put in front of every channel name in Redis.")
    connect_seconds: float = setting(
        5.0, "The longest that each step of connecting to Redis may take: TCP, TLS, password, PING.", least=0.1
    )
    ping_seconds: float = setting(3.0, "How often a quiet Redis connection is tried with PING.", least=0.1)
    ping_timeout_seconds: float = setting(
        5.0, "How long Redis may take to answer a PING before its connection is given up.", least=0.1
    )
    backoff_min_seconds: float = setting(
        0.1, "The first upper bound of the random wait before a reconnect.", least=0.01
    )
    backoff_max_seconds: float = setting(1.5, "The last upper bound of the random wait before a reconnect.", least=0.01)
    unsubscribe_after_seconds: float = setting(
        2.0, "How long a channel stays subscribed in Redis after its last client has gone.", least=0
    )


@frozen
class Embedded:
    """The Valkey that comes with the broker, used where no Redis is configured."""

    port: int = setting(
        6399, "Its port on 127.0.0.1, for services to publish to; the next free one if taken.", least=1, most=65535
    )


@frozen
class Clients:
    """Bounds that hold for every subscriber, over WebSocket and SSE alike."""

    max_connections: int = setting(
        0, "Connections at once; one more is answered 503. 0: as many as the open-file limit allows.", least=0
    )
    subscriptions_max: int = setting(1000, "Channels that one client may be subscribed to at once.", least=1)
    outbox_max_bytes: int = setting(
        MIB,
        "Bytes that may wait for one client to read them; over it, it is ended with code 4001, or the policy of the "
        "channel's type applies. drop_oldest keeps as many for it, of all its channels together.",
        least=64 * KIB,
    )
    outbox_max_age_seconds: float = setting(
        10.0,
        "How long a byte may wait for one client to read it; then the client is ended with code 4002, "
        "unless patience_seconds holds for it.",
        least=0.1,
    )
    farewell_seconds: float = setting(
        2.0, "How long a client that is being ended may take to read its goodbye and to close its end.", least=0.1
    )
    catch_up_bytes: int = setting(
        64 * KIB,
        "Bytes that may wait for one client before the policies drop_oldest and catch_up apply; latest does not "
        "wait for any. Also the size of the steps in which history is read.",
        least=4 * KIB,
    )
    patience_seconds: float = setting(
        60.0,
        "How long a client that reads slowly, on channels whose policy is not disconnect, may read nothing at all; "
        "then it is ended with code 4002. Less than listen.dead_seconds.",
        least=0.1,
    )


@frozen
class WebSocket:
    """WebSocket clients."""

    ping_seconds: float = setting(30.0, "How often a client gets a ping and a heartbeat event.", least=0.1)
    silence_seconds: float = setting(
        60.0, "No pong and no message for this long ends the client with code 1001.", least=0.1
    )
    message_max_bytes: int = setting(
        64 * KIB, "The largest message that a client may send; more ends it with code 1009.", least=128
    )


@frozen
class Sse:
    """Server-Sent Events clients."""

    keep_alive_seconds: float = setting(15.0, "How often a stream gets a comment that keeps it alive.", least=0.1)
    ended_seconds: float = setting(
        60.0, "How long the daemon remembers that a stream has ended, to answer a reconnect with 204.", least=0
    )
    # The `id` of an event has a position for each channel, and 2 KB at most.
    channels_max: int = setting(32, "Channels that one stream may name.", least=1, most=32)


@frozen
class Channels:
    """Channel types and what they are served with."""

    undeclared: str = setting(
        "serve", "What a channel type that is not declared gets: serve or refuse.", one_of=("serve", "refuse")
    )
    declared: tuple[str, ...] = setting(
        (),
        "Channel types besides the built-in ones and those of [types]; they matter where undeclared is refuse.",
    )
    message_max_bytes: int = setting(
        MIB, "The largest event taken from Redis; a larger one is dropped and counted.", least=1 * KIB, most=64 * MIB
    )


@frozen
class History:
    """Past events of channels, kept in Redis. How many and how long is an option of each channel type, in [types]."""

    position_seconds: float = setting(
        86400.0,
        "How long the position of a channel is kept after its last event, while nobody listens; who comes back later "
        "is told of a gap. At least as long as its events.",
        least=60.0,
        most=366 * 86400.0,
    )
    check_seconds: float = setting(
        30.0, "How often a silent channel is compared with Redis, in case a message was lost on the way.", least=1.0
    )
    lease_seconds: float = setting(
        2.0,
        "How long the daemon that records what comes by plain PUBLISH may be silent; then another takes over.",
        least=0.5,
        most=60.0,
    )


@frozen
class Evaluations:
    """Council scores and creative evaluations: requests whose answer is streamed, done by workers."""

    start_seconds: float = setting(
        10.0, "How long a request may wait while no worker runs, at first or after one died; then an error.", least=1.0
    )
    queue_seconds: float = setting(
        120.0, "How long a request may wait for a worker while all of them are busy; then an error.", least=0.1
    )
    grace_seconds: float = setting(
        10.0, "How long an evaluation goes on after its last watcher has left; then it is cancelled.", least=1.0
    )
    keep_seconds: float = setting(
        3600.0, "How long an evaluation can be watched and resumed after its last event.", least=60.0
    )
    pending_max: int = setting(
        200, "Evaluations that are queued or running at once, of each kind; one more is refused.", least=1
    )


@frozen
class Publish:
    """`POST /api/publish`: publishing over HTTP."""

    http: str = setting(
        "auto",
        "Who may use it. auto: whoever has the right, by token or API key; without authentication, this machine only. "
        "loopback: this machine only, with the right where authentication is on. off: nobody. A proxy on this machine "
        "makes everyone local: without authentication do not let it forward this path.",
        one_of=("auto", "loopback", "off"),
    )
    events_max: int = setting(1000, "Events that one request may publish; more is answered 413.", least=1)
    idempotency_seconds: float = setting(
        300.0, "How long a request with an Idempotency-Key can be repeated without publishing again.", least=1.0
    )


@frozen
class Daemon:
    """The process itself."""

    drain_seconds: float = setting(
        10.0, "How long clients may take to leave when the daemon stops; what is left then is cut off.", least=0
    )
    drain_clients_per_second: float = setting(
        1000.0,
        "How many clients a second are asked to leave when the daemon stops, or more where drain_seconds asks for it.",
        least=1.0,
    )
    unready_seconds: float = setting(
        0.0,
        "How long a daemon that is to stop still takes clients while /readyz says that it should get none, so that a "
        "load balancer notices.",
        least=0,
        most=3600.0,
    )
    reconnect_seconds: float = setting(
        2.0,
        "The longest that a client is told to wait before it comes back when the daemon stops; each is told a random "
        "time of its own.",
        least=0,
        most=3600.0,
    )
    control_socket: str = setting(
        "",
        "The unix socket where this machine's `broker reload` and `broker serve --takeover` find the daemon; only its "
        "own user may connect. Empty: one named after the first address, in the runtime folder of the user. off: none.",
    )
    workers: str = setting(
        "1",
        "Processes that serve clients, sharing each address with SO_REUSEPORT: a number, or auto for one a core.",
    )
    worker_silence_seconds: float = setting(
        10.0,
        "How long a worker may give no sign of life; then it is killed, and another takes its place. The others accept "
        "for it after a third of that.",
        least=2.0,
        most=600.0,
    )
    node: str = setting(
        "", "What this daemon is called among those that share a Redis. Empty: the name of the machine."
    )
    node_lease_seconds: float = setting(
        5.0,
        "How long a daemon that has become silent still counts among those that share its Redis.",
        least=1.0,
        most=300.0,
    )


@frozen
class Log:
    """What the daemon writes to standard error."""

    requests: str = setting(
        "off", "on: a line for every request and stream when it is over, tokens masked.", one_of=("off", "on")
    )
    level: str = setting("info", "The least level that is written.", one_of=("debug", "info", "warning", "error"))
    format: str = setting(
        "auto", "text, json, or auto: text on a terminal, else JSON lines.", one_of=("auto", "text", "json")
    )


@frozen
class Metrics:
    """`GET /metrics`, for Prometheus."""

    http: str = setting(
        "auto",
        "Who may read it. auto: whoever may administrate; without authentication, everybody. open: everybody. "
        "off: nobody.",
        one_of=("auto", "open", "off"),
    )


@frozen
class Console:
    """The page at `/` for whoever looks after the daemon."""

    http: str = setting(
        "auto",
        "auto: the page is served; without authentication to this machine only, or with --dev; with it, whoever may "
        "administrate signs in. off: nobody gets it.",
        one_of=("auto", "off"),
    )


@frozen
class Tracing:
    """Spans for OpenTelemetry, from a publish over HTTP to its dispatch. Needs `pip install broker[opentelemetry]`."""

    mode: str = setting(
        "off",
        "on: spans go where the OTEL_EXPORTER_OTLP_* variables say, and `traceparent` is kept with the event.",
        one_of=("off", "on"),
    )


@frozen
class Config:
    """Every setting of the daemon, checked.

    Args:
        types: the options of every channel type that is built in or has a table of its own.
    """

    listen: Listen = Listen()
    listen_tls: ListenTls = field(factory=ListenTls)
    auth: Auth = field(factory=Auth)
    rules: Rules = field(factory=Rules)
    limits: Limits = field(factory=Limits)
    redis: Redis = Redis()
    embedded: Embedded = Embedded()
    clients: Clients = Clients()
    websocket: WebSocket = WebSocket()
    sse: Sse = Sse()
    channels: Channels = Channels()
    history: History = History()
    evaluations: Evaluations = Evaluations()
    publish: Publish = Publish()
    daemon: Daemon = Daemon()
    metrics: Metrics = Metrics()
    console: Console = Console()
    tracing: Tracing = Tracing()
    log: Log = Log()
    types: Mapping[str, TypeOptions] = field(default=BUILT_IN_TYPES, hash=False)

    @property
    def declared_types(self) -> Mapping[str, TypeOptions]:
        """The options of `types`, and the defaults for what only `channels.declared` names."""
        return {**dict.fromkeys(self.channels.declared, TypeOptions()), **self.types}


def meaning(attribute: Attribute[Any]) -> str:
    """The sentence that explains one setting."""
    return str(attribute.metadata["meaning"])
