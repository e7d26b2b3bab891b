"""The settings of who may connect and what they may do: TLS, tokens, rules, limits."""

from __future__ import annotations

from attrs import frozen

from broker.config.setting import setting

MIB = 1024 * 1024


@frozen
class ListenTls:
    """TLS, version 1.2 or newer. The files are read again when they change; who is connected stays."""

    certificate: str = setting("", "PEM file with the certificate, and those that lead to its root. Empty: no TLS.")
    key: str = setting("", "PEM file with the certificate's private key. Empty: it is in the same file.")
    addresses: tuple[str, ...] = setting(
        (), "Those of the addresses to listen on that speak TLS; empty: all but unix sockets."
    )
    check_seconds: float = setting(5.0, "How often the files are looked at.", least=0.1)


@frozen
class Auth:
    """Who clients are: tokens (JWT) and API keys. As soon as a key to check tokens with, or an API key, is set,
    nobody gets in without. Without any, the daemon listens on loopback only."""

    mode: str = setting(
        "auto",
        "auto: on as soon as a key is set. off: nobody needs a token, on any address, and `userId` in the query names "
        "the user.",
        one_of=("auto", "off"),
    )
    secret: str = setting("", "The secret of tokens signed with HS256, HS384 or HS512; 32 bytes or more.", secret="all")
    key_file: str = setting(
        "", "PEM file with the public keys (or certificates) of tokens signed with RS, ES or EdDSA."
    )
    jwks: str = setting("", "Public keys of tokens as a JWK set: a file, or an https:// URL that is asked regularly.")
    jwks_refresh_seconds: float = setting(300.0, "How often the JWK set is read again.", least=1.0)
    jwks_grace_seconds: float = setting(
        3600.0,
        "How long a key that has gone from the JWK set, or all of them while it cannot be read, still count.",
        least=0.0,
    )
    jwks_timeout_seconds: float = setting(
        2.0, "The longest that a client waits for the JWK set to be asked about its token's key.", least=0.1
    )
    issuer: str = setting("", "The `iss` that tokens must have. Empty: any.")
    audience: tuple[str, ...] = setting((), "The `aud` of which tokens must have one. Empty: any.")
    leeway_seconds: float = setting(
        0.0, "How far the clocks of whoever makes tokens may be off, for exp, nbf and iat.", least=0.0, most=600.0
    )
    expiry: str = setting(
        "required", "Whether a token must have `exp`: required or optional.", one_of=("required", "optional")
    )
    cookie: str = setting("", "The cookie that may hold the token; pages of allowed origins only. Empty: none.")
    authenticate_seconds: float = setting(
        10.0, "How long a WebSocket client without a token may take to send one; then code 4401.", least=0.1
    )
    publish_keys: tuple[str, ...] = setting(
        (),
        "API keys that may publish what rules.key_publish allows, as `broker key create` writes them: NAME:HASH.",
        secret="hash",
    )
    admin_keys: tuple[str, ...] = setting(
        (),
        "API keys that may publish, see the stats, disconnect and revoke; written as publish_keys.",
        secret="hash",
    )
    revocation_seconds: float = setting(
        604800.0, "How long a revocation is remembered; at least as long as tokens live.", least=60.0
    )

    @property
    def is_on(self) -> bool:
        """Whether authentication is on: there is a key, or a place where keys come from, and it is not turned off."""
        keys = (self.secret, self.key_file, self.jwks, self.publish_keys, self.admin_keys)
        return self.mode != "off" and any(keys)


@frozen
class Rules:
    """Which channels who may use: patterns such as `job_progress:*` or `alerts:{sub}`. A token's own claims
    `subscribe` and `publish` stand in place of the rules for users. A channel that belongs to a user is for that
    user alone, whatever a rule says."""

    user_subscribe: tuple[str, ...] = setting(
        ("*:{sub}", "*:*:{sub}"), "What a user may subscribe to whose token has no `subscribe`."
    )
    user_publish: tuple[str, ...] = setting((), "Where a user may publish whose token has no `publish`.")
    anonymous_subscribe: tuple[str, ...] = setting(
        (), "What clients without a token may subscribe to, where authentication is on. Empty: they do not get in."
    )
    anonymous_publish: tuple[str, ...] = setting(
        (), "Where clients without a token may publish over WebSocket, also where authentication is off."
    )
    key_publish: tuple[str, ...] = setting(("*",), "Where whoever has an API key may publish.")


@frozen
class Limits:
    """Bounds on what one user, one address or one client may take. What is refused, and why, is in the stats."""

    connections_per_user: int = setting(
        100, "Connections of one user, by token, at once; one more is answered 429, or code 4429. 0: no limit.", least=0
    )
    streams_per_user: int = setting(
        100, "SSE streams of one user, by token, at once; one more is answered 429. 0: no limit.", least=0
    )
    connections_per_ip: int = setting(
        1000, "Connections of one IP address (of IPv6 a /64) at once; one more is answered 429. 0: no limit.", least=0
    )
    connects_per_second_per_ip: float = setting(
        100.0, "New connections a second of one IP address, on average; more are answered 429. 0: no limit.", least=0
    )
    connects_burst_per_ip: int = setting(
        1000, "New connections of one IP address that may come at once, as after a restart.", least=1
    )
    loopback: str = setting(
        "exempt",
        "Whether the limits by IP address hold for this machine too: exempt or limited.",
        one_of=("exempt", "limited"),
    )
    commands_per_second: float = setting(
        100.0,
        "Messages and pings a second of one WebSocket client, on average; more end it with code 4008. 0: no limit.",
        least=0,
    )
    commands_burst: int = setting(2000, "Messages and pings of one WebSocket client that may come at once.", least=1)
    outbox_total_bytes: int = setting(
        256 * MIB,
        "Bytes that may wait for all clients together; over it, the one for whom most wait is ended with code 4003.",
        least=MIB,
    )
