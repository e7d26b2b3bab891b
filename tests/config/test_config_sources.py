"""Where settings come from, what is refused, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.access import Auth
from broker.config.address import Address
from broker.config.document import show
from broker.config.names import SECTIONS, SETTINGS, TYPE_OPTIONS, TYPES_VARIABLE, parts_of, section_field, variable
from broker.config.sections import Channels, Clients, Config, Listen, Log, Redis, WebSocket
from broker.config.sources import load
from broker.config.types import BUILT_IN_TYPES
from broker.errors import ConfigError, Problem

HASH = "0123456789abcdef" * 4
SECRET = "not to be guessed, and never to be shown"

# A value other than the default for every setting: as a variable, and as it is then.
SAMPLES: Mapping[str, tuple[str, object]] = {
    "listen.addresses": ("127.0.0.1:9000, unix:/run/broker.sock", ("127.0.0.1:9000", "unix:/run/broker.sock")),
    "listen.backlog": ("10", 10),
    "listen.head_max_bytes": ("2048", 2048),
    "listen.head_seconds": ("1.5", 1.5),
    "listen.body_max_bytes": ("0", 0),
    "listen.body_seconds": ("2", 2.0),
    "listen.idle_seconds": ("1e2", 100.0),
    "listen.write_seconds": ("3", 3.0),
    "listen.dead_seconds": ("100", 100.0),
    "listen.allowed_origins": (
        "https://a.example,http://[::1]:8080,*",
        ("https://a.example", "http://[::1]:8080", "*"),
    ),
    "listen.trusted_proxies": ("10.0.0.0/8, ::1,unix", ("10.0.0.0/8", "::1", "unix")),
    "listen.proxy_protocol": ("127.0.0.1:8000", ("127.0.0.1:8000",)),
    "listen.tls.certificate": ("chain.pem", "chain.pem"),
    "listen.tls.key": ("key.pem", "key.pem"),
    "listen.tls.addresses": ("127.0.0.1:8000", ("127.0.0.1:8000",)),
    "listen.tls.check_seconds": ("7", 7.0),
    "auth.mode": ("off", "off"),
    "auth.secret": (SECRET, SECRET),
    "auth.key_file": ("keys.pem", "keys.pem"),
    "auth.jwks": ("https://id.example/keys", "https://id.example/keys"),
    "auth.jwks_refresh_seconds": ("7", 7.0),
    "auth.jwks_grace_seconds": ("7", 7.0),
    "auth.jwks_timeout_seconds": ("7", 7.0),
    "auth.issuer": ("https://id.example", "https://id.example"),
    "auth.audience": ("broker,web", ("broker", "web")),
    "auth.leeway_seconds": ("7", 7.0),
    "auth.expiry": ("optional", "optional"),
    "auth.cookie": ("__Host-token", "__Host-token"),
    "auth.authenticate_seconds": ("7", 7.0),
    "auth.publish_keys": (f"ci:{HASH}", (f"ci:{HASH}",)),
    "auth.admin_keys": (f"ops:{HASH},a.b:{HASH}", (f"ops:{HASH}", f"a.b:{HASH}")),
    "auth.revocation_seconds": ("70", 70.0),
    "rules.user_subscribe": ("job_progress:*, alerts:{sub}", ("job_progress:*", "alerts:{sub}")),
    "rules.user_publish": ("chat:*", ("chat:*",)),
    "rules.anonymous_subscribe": ("public_*:*", ("public_*:*",)),
    "rules.anonymous_publish": ("votes", ("votes",)),
    "rules.key_publish": ("job_progress:*", ("job_progress:*",)),
    "limits.connections_per_user": ("7", 7),
    "limits.streams_per_user": ("7", 7),
    "limits.connections_per_ip": ("0", 0),
    "limits.connects_per_second_per_ip": ("0", 0.0),
    "limits.connects_burst_per_ip": ("7", 7),
    "limits.loopback": ("limited", "limited"),
    "limits.commands_per_second": ("7", 7.0),
    "limits.commands_burst": ("7", 7),
    "limits.outbox_total_bytes": ("2097152", 2097152),
    "redis.url": ("rediss://u:p@db:6380/1", "rediss://u:p@db:6380/1"),
    "redis.channel_prefix": ("app:", "app:"),
    "redis.connect_seconds": ("1", 1.0),
    "redis.ping_seconds": ("1", 1.0),
    "redis.ping_timeout_seconds": ("1", 1.0),
    "redis.backoff_min_seconds": ("0.2", 0.2),
    "redis.backoff_max_seconds": ("9", 9.0),
    "redis.unsubscribe_after_seconds": ("0", 0.0),
    "embedded.port": ("6400", 6400),
    "clients.max_connections": ("7", 7),
    "clients.subscriptions_max": ("7", 7),
    "clients.outbox_max_bytes": ("2097152", 2097152),
    "clients.outbox_max_age_seconds": ("7", 7.0),
    "clients.farewell_seconds": ("7", 7.0),
    "clients.catch_up_bytes": ("8192", 8192),
    "clients.patience_seconds": ("7", 7.0),
    "websocket.ping_seconds": ("7", 7.0),
    "websocket.silence_seconds": ("70", 70.0),
    "websocket.message_max_bytes": ("128", 128),
    "sse.keep_alive_seconds": ("7", 7.0),
    "sse.ended_seconds": ("7", 7.0),
    "sse.channels_max": ("7", 7),
    "channels.undeclared": ("refuse", "refuse"),
    "channels.declared": ("note,task", ("note", "task")),
    "channels.message_max_bytes": ("2048", 2048),
    "history.position_seconds": ("70", 70.0),
    "history.check_seconds": ("7", 7.0),
    "history.lease_seconds": ("0.5", 0.5),
    "evaluations.start_seconds": ("7", 7.0),
    "evaluations.queue_seconds": ("7", 7.0),
    "evaluations.grace_seconds": ("7", 7.0),
    "evaluations.keep_seconds": ("70", 70.0),
    "evaluations.pending_max": ("7", 7),
    "publish.http": ("off", "off"),
    "publish.events_max": ("7", 7),
    "publish.idempotency_seconds": ("7", 7.0),
    "daemon.drain_seconds": ("0", 0.0),
    "daemon.drain_clients_per_second": ("50", 50.0),
    "daemon.unready_seconds": ("3", 3.0),
    "daemon.reconnect_seconds": ("0.5", 0.5),
    "daemon.control_socket": ("/run/broker/control.sock", "/run/broker/control.sock"),
    "daemon.workers": ("auto", "auto"),
    "daemon.worker_silence_seconds": ("5", 5.0),
    "daemon.node": ("web-1", "web-1"),
    "daemon.node_lease_seconds": ("7", 7.0),
    "metrics.http": ("open", "open"),
    "console.http": ("off", "off"),
    "tracing.mode": ("on", "on"),
    "log.requests": ("on", "on"),
    "log.level": ("debug", "debug"),
    "log.format": ("json", "json"),
}
# What some of them need beside them.
BESIDE: Mapping[str, Mapping[str, object]] = {
    "listen.proxy_protocol": {"listen.trusted_proxies": ("10.0.0.5",)},
    "listen.tls.key": {"listen.tls.certificate": "chain.pem"},
    "listen.tls.addresses": {"listen.tls.certificate": "chain.pem"},
    **{setting: {"auth.key_file": "keys.pem"} for setting in ("auth.issuer", "auth.audience", "auth.cookie")},
}

# Where every setting comes from that nobody gave.
DEFAULTS = dict.fromkeys(
    [*SETTINGS, *(f"types.{type}.{key}" for type in BUILT_IN_TYPES for key in TYPE_OPTIONS)], "default"
)


def config_with(given: Mapping[str, object]) -> Config:
    config = Config()
    for setting, value in given.items():
        section, key = parts_of(setting)
        field = section_field(section)
        config = attrs.evolve(config, **{field: attrs.evolve(getattr(config, field), **{key: value})})
    return config


def problems(
    text: str | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    at: Path | None = None,
) -> list[tuple[str, str]]:
    """Every problem as (where, what); the file is called by its name alone."""
    if at is not None and text is not None:
        at.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(flags=flags or {}, environ=environ or {}, file=at)
    assert all(isinstance(problem, Problem) for problem in caught.value.problems)
    assert str(caught.value).count("\n") == sum(str(problem).count("\n") + 1 for problem in caught.value.problems) - 1
    prefix = f"{at.parent}/" if at else ""
    return [(problem.where.removeprefix(prefix), problem.what) for problem in caught.value.problems]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "broker.toml"


def test_nothing_given_is_the_defaults() -> None:
    effective = load(flags={}, environ={"PATH": "/bin", "REDIS_URL": "", "broker_log_level": "x"}, file=None)
    assert effective.config == Config()
    assert effective.origins == DEFAULTS


def test_there_is_a_sample_for_every_setting() -> None:
    assert list(SAMPLES) == list(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_has_its_variable(setting: str) -> None:
    text, value = SAMPLES[setting]
    beside = BESIDE.get(setting, {})
    effective = load(flags=beside, environ={variable(setting): text}, file=None)
    assert effective.config == config_with({**beside, setting: value}) != config_with(beside)
    section, key = parts_of(setting)
    assert type(getattr(getattr(effective.config, section_field(section)), key)) is type(value)
    assert effective.origins[setting] == f"environment {variable(setting)}"
    assert {name for name, origin in effective.origins.items() if origin != "default"} == {setting, *beside}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_has_its_flag(setting: str) -> None:
    given = {**BESIDE.get(setting, {}), setting: SAMPLES[setting][1]}
    assert load(flags=given, environ={}, file=None).config == config_with(given)


def test_the_first_source_that_has_a_setting_wins(file: Path) -> None:
    file.write_text(
        "[log]\nlevel = 'error'\nformat = 'json'\n[listen]\nbacklog = 5\naddresses = ['a:1']\nidle_seconds = 7\n"
        "[auth]\nmode = 'off'\n"
    )
    effective = load(
        flags={"listen.addresses": ("c:3",), "log.level": None, "listen.allowed_origins": (), "log.format": "text"},
        environ={"BROKER_LOG_LEVEL": "debug", "BROKER_LISTEN_ADDRESSES": "b:2", "BROKER_LOG_FORMAT": "auto"},
        file=file,
    )
    assert effective.config == Config(
        listen=Listen(backlog=5, addresses=("c:3",), idle_seconds=7.0),
        auth=Auth(mode="off"),
        log=Log(level="debug", format="text"),
    )
    assert effective.origins == {
        **DEFAULTS,
        "listen.addresses": "flag --listen",
        "listen.backlog": str(file),
        "listen.idle_seconds": str(file),
        "auth.mode": str(file),
        "log.level": "environment BROKER_LOG_LEVEL",
        "log.format": "flag --log-format",
    }


@pytest.mark.parametrize(
    ("flags", "environ", "url", "origin"),
    [
        ({}, {}, "redis://file", "FILE"),
        ({}, {"REDIS_URL": ""}, "redis://file", "FILE"),
        ({}, {"REDIS_URL": "redis://b"}, "redis://b", "environment REDIS_URL"),
        ({}, {"REDIS_URL": "x", "BROKER_REDIS_URL": "redis://a"}, "redis://a", "environment BROKER_REDIS_URL"),
        ({}, {"REDIS_URL": "redis://b", "BROKER_REDIS_URL": ""}, "", "environment BROKER_REDIS_URL"),
        ({"redis.url": "unix:///f"}, {"REDIS_URL": "x"}, "unix:///f", "flag --redis"),
    ],
)
def test_the_url_of_redis(
    flags: Mapping[str, object], environ: Mapping[str, str], url: str, origin: str, file: Path
) -> None:
    file.write_text('[redis]\nurl = "redis://file"\n')
    effective = load(flags=flags, environ=environ, file=file)
    assert effective.config.redis == Redis(url=url)
    assert effective.origins["redis.url"].replace(str(file), "FILE") == origin


def test_variables_that_are_no_settings() -> None:
    names = ("URL", "CONFIG", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP_ADDR")
    assert load(flags={}, environ={f"BROKER_{name}": "x" for name in names}, file=None).config == Config()


def test_everything_wrong_with_a_file_is_said_at_once(file: Path) -> None:
    text = """
outbox_max_bytes = 5
daemon = 3
[redis]
ulr = "redis://:hunter2@db"
url = "http://u:hunter2@db"
channel_prefix = "a b"
backoff_min_seconds = 3
connect_seconds = "5"
ping_seconds = nan
[wobsocket]
ping_seconds = 3
[clients]
outbox_max_bytes = 1.5
max_connections = true
farewell_seconds = false
colour = 3
subscriptions_max = 2024-01-01
[listen]
addresses = [":8000", 5]
allowed_origins = "*"
backlog = 0
head_seconds = 0.05
body_max_bytes = 0xffffffffffffffffffff
[channels]
declared = ["note:1", "a b", "note"]
undeclared = "maybe"
[log]
level = 3
format = "a\\nb"
[sse]
message_max_bytes = 1
[embedded]
port = 65536
"""
    assert problems(text, at=file) == [
        ("broker.toml: outbox_max_bytes", "is not a section; did you mean clients.outbox_max_bytes?"),
        ("broker.toml: daemon", "must be a section, its name in brackets on a line of its own, not 3"),
        ("broker.toml: redis.ulr", "is not a setting; did you mean redis.url?"),
        ("broker.toml: redis.url", "'http://u:***@db' must start with redis://, rediss:// or unix://"),
        (
            "broker.toml: redis.channel_prefix",
            "'a b' has a space or a letter that is not ASCII; write it without, such as app:",
        ),
        ("broker.toml: redis.connect_seconds", "must be a number such as 5.0, not the text '5'"),
        ("broker.toml: redis.ping_seconds", "must be a number such as 3.0, not nan"),
        ("broker.toml: wobsocket", "is not a section; did you mean websocket?"),
        ("broker.toml: clients.outbox_max_bytes", "must be a whole number such as 1048576, not 1.5"),
        ("broker.toml: clients.max_connections", "must be a whole number such as 0, not true"),
        ("broker.toml: clients.farewell_seconds", "must be a number such as 2.0, not false"),
        (
            "broker.toml: clients.colour",
            "is not a setting; [clients] has max_connections, subscriptions_max, outbox_max_bytes, "
            + "outbox_max_age_seconds, farewell_seconds, catch_up_bytes, patience_seconds",
        ),
        ("broker.toml: clients.subscriptions_max", "must be a whole number such as 1000, not a date or a time"),
        (
            "broker.toml: listen.addresses",
            "':8000' has no host; write 127.0.0.1:8000 for this machine only, "
            + "0.0.0.0:8000 or [::]:8000 for every network",
        ),
        ("broker.toml: listen.addresses", "must be text in double quotes, not 5"),
        ("broker.toml: listen.allowed_origins", "must be a list of texts such as [\"...\"], not the text '*'"),
        ("broker.toml: listen.backlog", "0 is out of bounds; write 1 to 65535"),
        ("broker.toml: listen.head_seconds", "0.05 is out of bounds; write at least 0.1"),
        (
            "broker.toml: listen.body_max_bytes",
            "must be a whole number such as 1048576, not a number of more than 64 bits",
        ),
        ("broker.toml: channels.declared", "'note:1' is more than a type; write the part before the first colon"),
        (
            "broker.toml: channels.declared",
            "channel 'a b' has a character that is not allowed; use letters, digits and _ - . @ = + ~",
        ),
        ("broker.toml: channels.undeclared", "'maybe' is not known; write one of serve, refuse"),
        ("broker.toml: log.level", "must be text in double quotes, not 3"),
        ("broker.toml: log.format", r"'a\nb' has a character that cannot be printed; remove it"),
        (
            "broker.toml: sse.message_max_bytes",
            "is not a setting; did you mean websocket.message_max_bytes or channels.message_max_bytes?",
        ),
        ("broker.toml: embedded.port", "65536 is out of bounds; write 1 to 65535"),
        (
            "broker.toml: redis.backoff_min_seconds",
            "3 is more than redis.backoff_max_seconds, which is 1.5 (default); lower this or raise that",
        ),
    ]


def test_everything_wrong_in_all_sources_is_said_at_once(file: Path) -> None:
    assert problems(
        "[log]\nlevel = 'loud'\n[clients]\noutbox_max_bytes = 65536\n",
        at=file,
        flags={"log.levle": "x", "log.format": "xml", "listen.addresses": ("8000",)},
        environ={
            "BROKER_REDIS_ULR": "redis://:hunter2@db",
            "BROKER_FOO_BAR": "hunter2",
            "BROKER_REDIS": "redis://:hunter2@db",
            "BROKER_CLIENTS_SUBSCRIPTIONS_MAX": "abc",
            "BROKER_SSE_CHANNELS_MAX": "",
            "BROKER_PUBLISH_EVENTS_MAX": "1.0",
            "BROKER_LOG_LEVEL": "debug",
            "BROKER_LISTEN_ADDRESSES": "localhost:80,,unix:run/x",
            "REDIS_URL": "redis://:hun/ter2@db",
            "BROKER_WEBSOCKET_PING_SECONDS": "60",
        },
    ) == [
        ("flag --log-levle", "is not a setting; did you mean --log-level?"),
        ("environment BROKER_FOO_BAR", "is not a setting; `broker config table` lists them all"),
        ("environment BROKER_REDIS", "is not a setting; did you mean BROKER_REDIS_URL?"),
        ("environment BROKER_REDIS_ULR", "is not a setting; did you mean BROKER_REDIS_URL?"),
        ("flag --listen", "'8000' has no host; write 127.0.0.1:8000"),
        ("flag --log-format", "'xml' is not known; write one of auto, text, json"),
        (
            "environment BROKER_CLIENTS_SUBSCRIPTIONS_MAX",
            "must be a whole number such as 1000, not the text 'abc'",
        ),
        ("environment BROKER_LISTEN_ADDRESSES", "'' has no port; write HOST:PORT such as 127.0.0.1:8000"),
        (
            "environment BROKER_LISTEN_ADDRESSES",
            "'unix:run/x' has no absolute path; write it with one slash, unix:/run/broker.sock",
        ),
        ("environment BROKER_PUBLISH_EVENTS_MAX", "must be a whole number such as 1000, not the text '1.0'"),
        ("environment BROKER_SSE_CHANNELS_MAX", "must be a whole number such as 32, not the text ''"),
        (
            "environment REDIS_URL",
            "'redis://:***@db' has no usable host and port; "
            + "write special characters of a password as %XX, such as %2F for /",
        ),
        ("broker.toml: log.level", "'loud' is not known; write one of debug, info, warning, error"),
        (
            "broker.toml: clients.outbox_max_bytes",
            "65536 is less than channels.message_max_bytes, which is 1048576 (default); raise this or lower that",
        ),
        (
            "environment BROKER_WEBSOCKET_PING_SECONDS",
            "60.0 is not less than websocket.silence_seconds, which is 60.0 (default); lower this or raise that",
        ),
    ]


def test_a_pair_is_compared_across_sources(file: Path) -> None:
    assert problems(
        "[channels]\nmessage_max_bytes = 2000000\n[redis]\nbackoff_max_seconds = 0.3\nbackoff_min_seconds = 0.3\n",
        at=file,
        environ={"BROKER_CLIENTS_OUTBOX_MAX_BYTES": "1999999", "BROKER_WEBSOCKET_SILENCE_SECONDS": "30"},
    ) == [
        (
            "environment BROKER_CLIENTS_OUTBOX_MAX_BYTES",
            f"1999999 is less than channels.message_max_bytes, which is 2000000 ({file}); raise this or lower that",
        ),
        (
            "environment BROKER_WEBSOCKET_SILENCE_SECONDS",
            "30.0 is not more than websocket.ping_seconds, which is 30.0 (default); raise this or lower that",
        ),
    ]


def test_the_kernel_is_more_patient_than_the_daemon_or_off(file: Path) -> None:
    assert problems("[clients]\npatience_seconds = 90\n", at=file) == [
        (
            "broker.toml: clients.patience_seconds",
            "90 is not less than listen.dead_seconds, which is 90.0 (default); lower this or raise that",
        )
    ]
    assert problems("[listen]\ndead_seconds = 60\n", at=file) == [
        (
            "broker.toml: listen.dead_seconds",
            "60 is not more than clients.patience_seconds, which is 60.0 (default); raise this or lower that",
        )
    ]
    assert load(flags={}, environ={"BROKER_LISTEN_DEAD_SECONDS": "0"}, file=None).config.listen.dead_seconds == 0


def test_what_may_wait_before_a_policy_applies_is_no_more_than_what_may_wait_at_all(file: Path) -> None:
    assert problems("[clients]\ncatch_up_bytes = 1048577\n", at=file) == [
        (
            "broker.toml: clients.catch_up_bytes",
            "1048577 is more than clients.outbox_max_bytes, which is 1048576 (default); lower this or raise that",
        )
    ]
    environ = {"BROKER_CLIENTS_OUTBOX_MAX_BYTES": "65536", "BROKER_CHANNELS_MESSAGE_MAX_BYTES": "1024"}
    assert problems("[clients]\ncatch_up_bytes = 65537\n", at=file, environ=environ) == [
        (
            "environment BROKER_CLIENTS_OUTBOX_MAX_BYTES",
            f"65536 is less than clients.catch_up_bytes, which is 65537 ({file}); raise this or lower that",
        )
    ]


def test_a_pair_with_a_wrong_half_is_not_compared(file: Path) -> None:
    environ = {"BROKER_CHANNELS_MESSAGE_MAX_BYTES": "2097152"}
    assert problems("clients = 3\n", at=file, environ=environ) == [
        ("broker.toml: clients", "must be a section, its name in brackets on a line of its own, not 3")
    ]
    assert [where for where, _ in problems("[clients]\noutbox_max_bytes = 1\n", at=file, environ=environ)] == [
        "broker.toml: clients.outbox_max_bytes"
    ]


def test_pairs_at_their_bounds() -> None:
    environ = {
        "BROKER_CLIENTS_OUTBOX_MAX_BYTES": "65536",
        "BROKER_CHANNELS_MESSAGE_MAX_BYTES": "65536",
        "BROKER_WEBSOCKET_PING_SECONDS": "59.9",
    }
    assert load(flags={}, environ=environ, file=None).config == Config(
        clients=Clients(outbox_max_bytes=65536),
        channels=Channels(message_max_bytes=65536),
        websocket=WebSocket(ping_seconds=59.9),
    )


def test_toml_that_cannot_be_parsed(file: Path) -> None:
    environ = {"BROKER_LOG_LEVEL": "loud", "BROKER_CHANNELS_MESSAGE_MAX_BYTES": "2097152"}
    hint = "write key = value, texts in double quotes, lists in [ ]"
    assert problems("[redis]\nurl = redis://:hunter2@db\n", at=file, environ=environ) == [
        ("broker.toml: line 2, column 7", f"is not TOML: Invalid value; {hint}"),
        ("environment BROKER_LOG_LEVEL", "'loud' is not known; write one of debug, info, warning, error"),
    ]
    assert problems("[redis]\nurl = [", at=file) == [
        ("broker.toml: end of document", f"is not TOML: Invalid value; {hint}")
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    assert problems(at=file) == [
        ("broker.toml", "cannot be read: No such file or directory; name a file that can be, or none")
    ]
    assert problems(at=tmp_path) == [
        (tmp_path.name, "cannot be read: Is a directory; name a file that can be, or none")
    ]
    file.write_bytes(b"[log]\nlevel = '\xff'\n")
    assert problems(at=file) == [("broker.toml: line 2", "is not UTF-8; save the file in that encoding")]
    assert problems(f"a = {'9' * 5000}", at=file) == [
        ("broker.toml", "has a number too long or lists too deep to be read")
    ]


def test_keys_that_are_not_plain(file: Path) -> None:
    assert problems('[log]\n"a\\nb" = 1\n["redis://:hunter2@db"]\n', at=file) == [
        (r"broker.toml: log.'a\nb'", "is not a setting; [log] has requests, level, format"),
        (
            "broker.toml: 'redis://:***@db'",
            f"is not a section; the sections are {', '.join(SECTIONS)}, types",
        ),
    ]


def test_a_secret_never_stands_in_a_message(file: Path) -> None:
    urls = ["http://:{}@db", "redis://:{}/x@db", "{}", ":{}@db", "redis://:{}@db\\n", "redis://db:x?password={}"]
    for url in (form.format("hunter2") for form in urls):
        # A file or an issuer may be called anything, and a type is told by its name.
        free = {"redis.channel_prefix", "auth.key_file", "auth.issuer", "listen.tls.certificate", "listen.tls.key"}
        environ = {variable(setting): url for setting in SETTINGS if setting not in free}
        quoted = f'"{url}"'
        text = f"redis.url = {quoted}\nlisten.allowed_origins = [{quoted}]\nlog.level = {{ a = {quoted} }}\n"
        if url == "hunter2":
            # A word alone is a secret where a URL belongs and nowhere else.
            environ, text = {"BROKER_REDIS_URL": url}, f"redis.url = {quoted}\n"
        for where, what in problems(text, at=file, environ=environ):
            assert "hunter2" not in where + what


def test_a_secret_is_not_in_the_repr() -> None:
    effective = load(flags={}, environ={"REDIS_URL": "redis://:hunter2@db"}, file=None)
    assert effective.config.redis.url == "redis://:hunter2@db"
    assert "hunter2" not in repr(effective) + show(effective)


OPTION_TEXTS = ["0", "1", "0.5", "2e9", "-1", "nan", "off", "auto", "catch_up", "latest", ""]


@given(
    st.dictionaries(
        st.sampled_from([variable(setting) for setting in SETTINGS]),
        st.text(),
    ),
    st.none()
    | st.text()
    | st.lists(st.text(st.sampled_from('a.=:validteoff "\n'))).map(",".join)
    | st.lists(
        st.tuples(
            st.sampled_from(["a", "alerts"]), st.sampled_from(list(TYPE_OPTIONS)), st.sampled_from(OPTION_TEXTS)
        ).map(lambda option: "{}.{}={}".format(*option))
    ).map(",".join),
)
def test_any_environment_loads_or_is_refused(environ: dict[str, str], types: str | None) -> None:
    if types is not None:
        environ = {**environ, TYPES_VARIABLE: types}
    try:
        show(load(flags={}, environ=environ, file=None))
    except ConfigError as error:
        assert str(error).isascii() and str(error).count("\n") == len(error.problems) - 1


@pytest.mark.parametrize(
    ("text", "address", "is_loopback"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1", 8000), True),
        ("127.9.9.9:0", Address("127.9.9.9", 0), True),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535), False),
        ("[::1]:80", Address("::1", 80), True),
        ("[::]:80", Address("::", 80), False),
        ("[::ffff:127.0.0.1]:80", Address("::ffff:127.0.0.1", 80), False),
        ("localhost:80", Address("localhost", 80), True),
        ("my-host.example:80", Address("my-host.example", 80), False),
        ("unix:/run/broker.sock", Address(path="/run/broker.sock"), True),
    ],
)
def test_addresses(text: str, address: Address, is_loopback: bool) -> None:
    assert Address.parse(text) == address
    assert (str(address), address.is_loopback) == (text, is_loopback)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' has no port; write HOST:PORT such as 127.0.0.1:8000"),
        ("localhost", "'localhost' has no port; write HOST:PORT such as 127.0.0.1:8000"),
        ("8000", "'8000' has no host; write 127.0.0.1:8000"),
        ("[::1]", "'[::1]' has no port; write HOST:PORT such as 127.0.0.1:8000"),
        (
            "*:80",
            "'*:80' has no host; write 127.0.0.1:80 for this machine only, 0.0.0.0:80 or [::]:80 for every network",
        ),
        ("a:65536", "'a:65536' has no port from 0 to 65535 behind its last colon"),
        ("a:-1", "'a:-1' has no port from 0 to 65535 behind its last colon"),
        ("a:٣", r"'a:\u0663' has no port from 0 to 65535 behind its last colon"),
        ("::1:80", "'::1:80' has more than one colon; write an IPv6 address in brackets, [::1]:80"),
        ("[nope]:80", "'[nope]:80' has no IPv6 address in its brackets; write [::1]:80"),
        ("127.1:80", "'127.1:80' is not an IPv4 address of four numbers from 0 to 255; write 127.0.0.1:80"),
        ("a b:80", "'a b:80' has a character that no host name has; use letters, digits and - . _"),
        ("http://a:80", "'http://a:80' is a URL; write HOST:PORT, [IPV6]:PORT or unix:/path"),
        ("unix:a", "'unix:a' has no absolute path; write it with one slash, unix:/run/broker.sock"),
        ("unix:///a", "'unix:///a' has no absolute path; write it with one slash, unix:/run/broker.sock"),
        ("unix:/run/", "'unix:/run/' does not name a file; write unix:/run/broker.sock"),
        ("unix:/" + "a" * 107, f"'unix:/{'a' * 74}...' has a path of 108 bytes; a socket's path has at most 107"),
    ],
)
def test_addresses_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Address.parse(text)
    assert str(caught.value) == message


@given(st.text(st.sampled_from("unix:/[]0a.@*- ")))
def test_an_address_reads_back_as_itself(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address
    assert isinstance(address.is_loopback, bool)
