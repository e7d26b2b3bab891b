"""`broker doctor`: whether a running daemon serves its clients, a line for each thing that was tried."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from broker.cli.sub import escaped
from broker.config.names import variable
from broker.config.redisname import check_redis_url

if TYPE_CHECKING:
    from broker.doctor.finding import Finding
    from broker.doctor.publisher import RedisPublisher
    from broker.doctor.target import Target

_NAME_CHARACTERS = 21
_MARKS = {"ok": ("ok  ", "green"), "fail": ("FAIL", "red"), "skip": ("skip", "yellow")}


@click.command("doctor", short_help="Try a running daemon as a client would.")
@click.argument("url", envvar="BROKER_URL", default="http://127.0.0.1:8000")
@click.option(
    "--redis",
    "redis_url",
    metavar="URL",
    help="Publish the round trip through this Redis, as services do. Default: through POST /api/publish.",
)
@click.option(
    "--channel-prefix",
    metavar="TEXT",
    envvar=variable("redis.channel_prefix"),
    default="",
    help="With --redis: the daemon's redis.channel_prefix (environment: BROKER_REDIS_CHANNEL_PREFIX).",
)
@click.option(
    "--timeout-seconds",
    "seconds",
    type=click.FloatRange(0.1, 600),
    default=5.0,
    show_default=True,
    help="The deadline of each check.",
)
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="BROKER_TOKEN",
    help="Who the doctor is (environment: BROKER_TOKEN, which is not seen in the list of processes).",
)
@click.option(
    "--ca",
    "ca_file",
    metavar="FILE",
    type=click.Path(),
    help="PEM file of the certificates to trust in place of the system's (environment: SSL_CERT_FILE).",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object at the end, for machines.")
def command(
    url: str,
    redis_url: str | None,
    channel_prefix: str,
    seconds: float,
    token: str | None,
    ca_file: str | None,
    is_json: bool,
) -> None:
    """Try the daemon at URL as its clients would, and say what to do where something fails.

    URL is http://127.0.0.1:8000 by default, or what BROKER_URL says. The exit status is 1 where
    anything failed. Nothing but five events on a channel of its own is published.

    \b
    broker doctor
    broker doctor https://events.example.com --redis redis://redis.internal:6379/0
    """
    import trio

    from broker.doctor.target import Target, check_token

    try:
        if token:
            check_token(token)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--token") from None
    try:
        target = Target.from_url(url, token or None, ca_file)
    except OSError as error:  # an SSLError too, for what is no PEM
        raise click.BadParameter(f"cannot read {ca_file}: {error.strerror or error}", param_hint="--ca") from None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from None
    publisher = _redis_publisher(redis_url, channel_prefix, seconds) if redis_url else None
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not is_json and not (_is_unreachable(findings) and finding.verdict == "skip"):
            click.echo(_line(finding))

    interrupted = False
    try:
        trio.run(_examine, target, publisher, seconds, tell)
    except* KeyboardInterrupt:
        interrupted = True
    finally:
        if publisher is not None:
            publisher.close()
    failed = sum(finding.verdict == "fail" for finding in findings)
    if is_json:
        click.echo(json.dumps(_report(target, findings), indent=2))
    else:
        for line in _summary(findings, interrupted):
            click.echo(line)
    sys.exit(130 if interrupted else 1 if failed else 0)


async def _examine(
    target: Target, publisher: RedisPublisher | None, seconds: float, tell: Callable[[Finding], None]
) -> None:
    from broker.doctor.examination import examine

    await examine(target, publisher=publisher, seconds=seconds, tell=tell)


def _redis_publisher(url: str, channel_prefix: str, seconds: float) -> RedisPublisher:
    from broker.doctor.publisher import RedisPublisher

    try:
        check_redis_url(url)
        return RedisPublisher(url, channel_prefix, seconds)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--redis") from None


def _is_unreachable(findings: list[Finding]) -> bool:
    """Whether nothing could be connected to: then all that follows is skipped for one reason."""
    return bool(findings) and findings[0].verdict == "fail"


def _summary(findings: list[Finding], interrupted: bool) -> Iterator[str]:
    """The last lines."""
    from broker.doctor.finding import Finding

    counts = Counter(finding.verdict for finding in findings)
    if counts["skip"] and _is_unreachable(findings):
        yield _line(Finding(f"{counts['skip']} other checks", "skip", findings[-1].text))
    if counts["fail"]:
        yield f"{counts['fail']} of {len(findings)} failed"
    elif interrupted:
        yield "interrupted"
    elif counts["skip"]:
        yield f"{counts['ok']} of {len(findings)} checks ok, {counts['skip']} skipped"
    else:
        yield f"{len(findings)} checks, all ok"


def _line(finding: Finding) -> str:
    """One check: its mark, its name, what was seen; and below, where it failed, what to do."""
    mark, colour = _MARKS[finding.verdict]
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        mark = click.style(mark, fg=colour)
    line = f"{mark} {finding.check:<{_NAME_CHARACTERS}} {escaped(finding.text)}"
    return f"{line}\n     {'':<{_NAME_CHARACTERS}} {escaped(finding.advice)}" if finding.advice else line


def _report(target: Target, findings: list[Finding]) -> object:
    return {
        "url": target.url,
        "healthy": not any(finding.verdict == "fail" for finding in findings),
        "checks": [
            {
                "check": finding.check,
                "verdict": finding.verdict,
                "text": finding.text,
                "advice": finding.advice,
                "milliseconds": None if finding.milliseconds is None else round(finding.milliseconds, 1),
            }
            for finding in findings
        ],
    }
