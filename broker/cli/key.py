"""`broker key`: API keys for services."""

from __future__ import annotations

import click

from broker.auth.apikey import line_of, new_key


@click.group(name="key")
def command() -> None:
    """Make API keys, with which services publish over HTTP."""


@command.command(name="create")
@click.argument("name")
@click.option("--admin", "is_admin", is_flag=True, help="It may also see the stats, disconnect and revoke.")
def create(name: str, is_admin: bool) -> None:
    """Print a new API key, and the line for the settings.

    The first line is the key, for the service; it is shown this once and kept nowhere. The second is for the
    daemon's settings, which have its hash alone. NAME is in both: it says in the log whose key it is.

    \b
    broker key create billing
    curl -H "Authorization: Bearer bk_billing_..." -d '{"channel": ...}' https://events.example.com/api/publish
    """
    try:
        key = new_key(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from None
    click.echo(key)
    click.echo(f'{"admin" if is_admin else "publish"}_keys = ["{line_of(key)}"]  # in [auth]')
