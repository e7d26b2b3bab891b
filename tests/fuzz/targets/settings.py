"""Settings files, the environment and flags: settings, or problems that a person can read; no secret in either."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from broker.config.document import show
from broker.config.names import SETTINGS, TYPES
from broker.config.sources import load
from broker.errors import ConfigError
from tests.fuzz.target import Target

SECRET = "hunter2"
_IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def check(data: bytes) -> str:
    """A file; behind a NUL variables of the environment, behind another flags, each a line `NAME=VALUE`."""
    data, environ, flags = [*data.split(b"\0", 2), b"", b""][:3]
    with tempfile.NamedTemporaryFile(dir=_IN_MEMORY, suffix=".toml") as file:
        file.write(data)
        file.flush()
        return check_settings(Path(file.name), named(environ), named(flags))


def named(data: bytes) -> dict[str, str]:
    """As Python has what is no UTF-8 of a command line, or of the environment."""
    lines = data.decode(errors="surrogateescape").split("\n")
    return {name: value for name, equals, value in (line.partition("=") for line in lines) if equals}


def check_settings(file: Path, environ: dict[str, str], given: dict[str, str]) -> str:
    # Flags that are no settings are click's to refuse; of types there is a list.
    flags: dict[str, object] = {name: value for name, value in given.items() if name in SETTINGS}
    if TYPES in given:
        flags[TYPES] = tuple(given[TYPES].split(","))
    try:
        effective = load(flags=flags, environ=environ, file=file)
    except ConfigError as error:
        for problem in error.problems:
            for text in (problem.where, problem.what):
                lines = text.split("\n")
                assert len(lines) == 1 or "[auth]" in text
                assert all(line.isprintable() for line in lines), text
            assert problem.where and problem.what
        return str(min(len(error.problems), 9))
    shown = dict(line.split(" = ", 1) for line in show(effective).splitlines())
    assert shown["auth.secret"].split("  # ")[0] == ('"***"' if effective.config.auth.secret else '""')
    assert "secret=" not in repr(effective.config.auth) and "url=" not in repr(effective.config.redis)
    if "@" in effective.config.redis.url:
        assert f"{SECRET}-secret" not in shown["redis.url"].rpartition("@")[0]
    return "settings"


TARGET = Target(
    "settings",
    check,
    (
        b'[redis]\nurl = "redis://:hunter2-secret@db:6379/0"\n[log]\nlevel = "debug"\n',
        b'[listen]\naddresses = ["127.0.0.1:8000", "unix:/run/b.sock"]\nallowed_origins = ["https://*.example.com"]\n',
        b'[listen]\naddresses = ["0.0.0.0:8000"]\n',
        b'[auth]\nsecret = "hunter2-secret hunter2-secret hunter2-secret"\nissuer = "a"\ncookie = "c"\n',
        b'[auth]\nmode = "off"\n[listen]\naddresses = ["0.0.0.0:8000"]\ntrusted_proxies = ["10.0.0.0/8"]\n',
        b'[listen.tls]\ncertificate = "a.pem"\nkey = "b.pem"\ncheck_seconds = 1.5\n',
        b'[rules]\nuser_subscribe = ["job_progress:*", "alerts:{sub}"]\n[limits]\nconnections_per_ip = 0\n',
        b'[types.job_progress]\nhistory_length = 7\nhistory_seconds = 60\n[types."a.b"]\nvalidate = "off"\n',
        b"[clients]\noutbox_max_bytes = 1048576\nmax_connections = 0x10\nsubscriptions_max = 1_000\n",
        b"[embedded]\nport = 2024-01-01\n[[listen]]\n[log.level]\n",
        b"\0BROKER_REDIS_URL=redis://:hunter2-secret@db:6379/0\nBROKER_LOG_LEVEL=debug\nREDIS_URL=redis://other",
        b'[log]\nlevel = "info"\0BROKER_TYPES=job_progress.history_length=7,a.validate=off\nBROKER_LISTEN_BACKLOG=7',
        b"\0BROKER_LOG_LEVLE=debug\nBROKER_LISTEN_ADDRESSES=127.0.0.1:1, unix:/run/b\0log.level=error",
        b"\0\0types=a.history_seconds=1e2,b.validate=json\nlisten.addresses=127.0.0.1:1\nclients.max_connections=+5",
    ),
    (
        b"[auth]\n", b"[listen]\n", b"[listen.tls]\n", b"[types]\n", b"[types.a]\n", b"secret = ", b"addresses = ",
        b"tls = ",
        b"[", b"]", b"=", b"\n", b'"', b"'", b'"""', b"true", b"nan", b"inf", b"1e400", b"0xffffffffffffffffff",
        b"[[a]]\n",
        b"1979-05-27T07:32:00Z", b"{a = 1}", b'["a", 1]', b"#", b'"listen.tls"', b"\\u0000", b"\\U0001F600",
        b"a.b.c = 1\n",
        b'"0.0.0.0:1"', b'"*"', b"cors_origins = []\n", b"\0", b"\nBROKER_AUTH_SECRET=", b"\nBROKER_TYPES=",
        b"\nBROKER_CLIENTS_MAX_CONNECTIONS=", b"\nREDIS_URL=redis://", b"\nauth.secret=", b"\nlog.level=", b"\x85",
        b"\nauth.mode=off", b"job_progress.validate=off",
    ),
    frozenset({"settings", "1", "2"}),
    max_bytes=5_000,
)  # fmt: skip
