"""`broker explain`: what somebody may do, which rule says so, and why."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from broker.cli.keyring import config_option, keyring_of
from broker.errors import TokenRefused


@click.command(name="explain")
@click.option(
    "--token",
    "-t",
    metavar="TOKEN",
    envvar="BROKER_TOKEN",
    help="A token or an API key; - reads it from standard input. None: somebody without. [BROKER_TOKEN]",
)
@config_option
@click.argument("action", type=click.Choice(["subscribe", "publish"]))
@click.argument("channel")
def command(token: str | None, config_file: Path | None, action: str, channel: str) -> None:
    """Say whether CHANNEL is allowed, by the settings in force: the file, the environment, the defaults.

    The exit status is 1 where it is not. Revocations are not looked at: they are in Redis.
    A running daemon says the same at GET /api/realtime/explain?action=subscribe&channel=...

    \b
    broker explain --token "$TOKEN" subscribe alerts:7
    """
    from broker.auth.apikey import ApiKeys
    from broker.auth.identity import ANONYMOUS, NOBODY, Identity
    from broker.auth.rules import RuleBook
    from broker.auth.token import TokenReader
    from broker.channel import Channel
    from broker.config.sources import load

    config = load(flags={}, environ=os.environ, file=config_file).config
    text = sys.stdin.readline().strip() if token == "-" else token
    named = Channel.from_name(channel)
    try:
        if not config.auth.is_on:
            identity = NOBODY
        elif not text:
            identity = Identity(ANONYMOUS)
        else:
            identity = ApiKeys(config.auth).identify(text) or TokenReader(config.auth).read(
                text, keyring_of(config.auth), time.time()
            )
    except TokenRefused as refused:
        raise click.ClickException(f"the token does not count: {refused} ({refused.reason})") from None
    decision = RuleBook(config.rules, config.declared_types).decide(identity, action, named)
    who = {"user": f"user {identity.user_id}", "key": f"API key {identity.name}"}.get(identity.kind, identity.kind)
    verb = "may" if decision.allowed else "may not"
    click.echo(f"{ascii(who)[1:-1]} {verb} {action} {named.name}")
    click.echo(f"decided by {decision.rule}: {decision.why}")
    if not decision.allowed:
        raise SystemExit(1)
