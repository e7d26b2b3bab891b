"""`broker doctor` where there is something to get past: tokens, foreign pages, certificates."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from broker.cli import doctor
from broker.doctor.conversation import RIGHTS_ADVICE
from tests.access.visitor import SECRET, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.cli.test_cli_doctor import CHECKS, LONG_STREAMS, Report, proxy
from tests.conftest import errors_of

EVALUATIONS = ["sse council-score", "sse evaluate-creative"]
StartDaemon = Callable[..., DaemonProcess]
GIVE_ONE = "give one with --token, or in BROKER_TOKEN; `broker token create` makes tokens"
ALL = token("doctor", seconds=36000, subscribe=["*"], publish=["job_progress:*"], broker_admin=True)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, DaemonProcess]]:
    """A Redis, and a daemon that asks for tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    redis_server = RedisServer(folder)
    redis_server.start()
    daemon = DaemonProcess(
        redis_server.url, folder / "daemon.log", ("--log-format", "json"), {"BROKER_AUTH_SECRET": SECRET}
    )
    daemon.start()
    yield redis_server, daemon
    daemon.stop()
    redis_server.kill()
    assert errors_of(daemon) == []


Guarded = tuple[RedisServer, DaemonProcess]


def test_green_with_a_token_that_may(guarded: Guarded) -> None:
    report = Report(guarded[1].url, "--token", ALL)
    assert (report.status, report.with_verdict("ok")) == (0, CHECKS)
    assert report.checks["authentication"]["text"].startswith("on, and the token counts, ")
    assert report.checks["tls"]["text"].startswith("none: the URL is http, and the token goes in the clear, ")
    done = CliRunner().invoke(doctor.command, [guarded[1].url], env={"BROKER_TOKEN": ALL})
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "19 checks, all ok")
    assert ALL not in done.output


def test_without_a_token_it_says_what_it_needs(guarded: Guarded) -> None:
    report = Report(guarded[1].url)
    assert report.with_verdict("ok") == ["connect", "tls", "health", "origin"]
    assert report.said("authentication") == ("fail", "on: clients need a token, and none was given", GIVE_ONE)
    assert report.with_verdict("skip") == CHECKS[5:]
    assert report.said("stats") == ("skip", "see what authentication says", "")
    assert report.status == 1


@pytest.mark.parametrize("bad", [token("ann", exp=1), token("ann", secret="x" * 40), "nonsense"])
def test_a_token_that_does_not_count(guarded: Guarded, bad: str) -> None:
    report = Report(guarded[1].url, "--token", bad)
    verdict, text, advice = report.said("authentication")
    assert (verdict, advice) == ("fail", GIVE_ONE)
    assert text.startswith("on, and the token does not count: HTTP 401: ")
    assert bad not in text
    assert report.with_verdict("skip") == CHECKS[5:]


def test_the_stats_are_for_administrators_and_their_lack_is_no_failure(guarded: Guarded) -> None:
    redis_server, daemon = guarded
    reader = token("ann", subscribe=["*"])
    arguments = [daemon.url, "--token", reader, "--redis", redis_server.url]
    report = Report(*arguments)
    assert (report.status, report.with_verdict("fail"), report.with_verdict("skip")) == (0, [], ["stats"])
    assert report.said("stats") == ("skip", "needs an admin token", "")
    done = CliRunner().invoke(doctor.command, arguments)
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "18 of 19 checks ok, 1 skipped")


def test_a_token_that_may_not_subscribe_or_publish(guarded: Guarded) -> None:
    _, daemon = guarded
    report = Report(daemon.url, "--token", token("ann", subscribe=["job_progress:*"]))
    assert report.with_verdict("fail") == [*LONG_STREAMS[1:], *EVALUATIONS, "publish"]
    verdict, text, advice = report.said("publish")
    assert text.startswith("HTTP 403: ")
    assert advice.endswith("or a token that may publish job_progress:*, with --token")
    report = Report(daemon.url, "--token", token("ann", subscribe=[]))
    assert report.with_verdict("fail") == ["ws subscribe", *LONG_STREAMS, *EVALUATIONS]
    for name in (*LONG_STREAMS, *EVALUATIONS):
        verdict, text, advice = report.said(name)
        assert re.match(r"HTTP 403: .+ is not for you: ", text), text
    verdict, text, advice = report.said("ws subscribe")
    assert (verdict, advice) == ("fail", RIGHTS_ADVICE)
    assert re.match(r"forbidden: job_progress:doctor_\w+ is not for you: ", text)


def test_where_authentication_is_off_a_token_is_not_looked_at(daemon: DaemonProcess) -> None:
    report = Report(daemon.url, "--token", "anything")
    assert (report.status, report.with_verdict("ok")) == (0, CHECKS)
    assert report.checks["authentication"]["text"].startswith("off: nobody needs a token, and none is looked at, ")


# ---- pages ----


def test_every_page_may_connect_where_the_settings_say_so(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--listen-allowed-origins", "*")
    report = Report(daemon.url, "--redis", redis_server.url)
    assert report.checks["origin"]["text"].startswith("any page may connect, as listen.allowed_origins has *, ")
    assert report.status == 0


def test_a_proxy_that_takes_the_origin_away(guarded: Guarded) -> None:
    with proxy(guarded[1].port, request=lambda head: re.sub(rb"(?i)\r\norigin: [^\r]*", b"", head)) as url:
        report = Report(url, "--token", ALL)
    assert report.with_verdict("fail") == ["origin"]
    assert report.said("origin") == (
        "fail",
        "a page of another site may connect",
        "let the proxy in between pass Origin on unchanged; see listen.allowed_origins, and the daemon's version",
    )


# ---- certificates ----


def _files(folder: Path, expires_at: datetime | None = None) -> tuple[str, str]:
    """What the doctor trusts, and the daemon's certificate with its key."""
    authority, pair = trustme.CA(), folder / "server.pem"
    issued = authority.issue_cert("127.0.0.1", not_after=expires_at)
    issued.private_key_and_cert_chain_pem.write_to_path(pair)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "ca.pem"), str(pair)


def test_over_tls_with_a_token(redis_server: RedisServer, start_daemon: StartDaemon, tmp_path: Path) -> None:
    ca, pair = _files(tmp_path, datetime.now(UTC) + timedelta(days=20, hours=1))
    daemon = start_daemon(redis_server.url, "--listen-tls-certificate", pair, environ={"BROKER_AUTH_SECRET": SECRET})
    url = daemon.url.replace("http", "https")
    report = Report(url, "--token", ALL, "--ca", ca)
    verdict, text, advice = report.said("tls")
    # trustme's certificates count since the year 2000: less than a tenth of that is left.
    assert (verdict, text) == (
        "fail",
        "TLSv1.3, the certificate counts for 20 days more, less than a tenth of its time",
    )
    assert advice == "renew it; the daemon reads its files again by itself"
    assert report.with_verdict("fail") == ["tls"]
    report = Report(url, "--token", ALL)
    assert report.with_verdict("fail") == ["connect"]
    assert report.said("connect")[1].startswith("its certificate is refused: ")


def test_over_tls_all_is_well(redis_server: RedisServer, start_daemon: StartDaemon, tmp_path: Path) -> None:
    ca, pair = _files(tmp_path)
    daemon = start_daemon(redis_server.url, "--listen-tls-certificate", pair)
    report = Report(daemon.url.replace("http", "wss"), "--ca", ca)
    assert (report.status, report.with_verdict("ok")) == (0, CHECKS)
    assert re.fullmatch(r"TLSv1\.3, the certificate counts for \d+ days more, \d+ ms", report.checks["tls"]["text"])


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_file_without_certificates(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    done = CliRunner().invoke(doctor.command, ["https://127.0.0.1:1", "--ca", str(file)])
    assert done.exit_code == 2
    assert f"Invalid value for --ca: cannot read {file}: " in done.stderr
    with pytest.raises(OSError):
        ssl.create_default_context(cafile=file)


@pytest.mark.parametrize("bad", ["a b", "a\r\nX-Admin: 1", "é", "a" * 8001])
def test_what_can_be_no_token_is_not_shown(bad: str) -> None:
    done = CliRunner().invoke(doctor.command, ["http://127.0.0.1:1", "--token", bad])
    assert done.exit_code == 2
    assert "not a token: it must be 1 to 8000 visible ASCII characters, without spaces" in done.stderr
    assert bad not in done.output
