"""The keys that a command reads tokens with: those that the daemon would have, with the same settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from broker.auth.keyring import Keyring
    from broker.config.access import Auth

config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    envvar="BROKER_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The daemon's configuration file (environment: BROKER_CONFIG).",
)


def auth_section(config_file: Path | None, flags: Mapping[str, object]) -> Auth:
    from broker.config.sources import load

    return load(flags=flags, environ=os.environ, file=config_file).config.auth


def keyring_of(section: Auth) -> Keyring:
    """The keys that the daemon would have, a JWK set from its host included."""
    from broker.keysource import KeySource

    source = KeySource(section)
    if "://" in section.jwks:
        import trio
        from attrs import evolve

        from broker.config.sections import Log
        from broker.log import open_log

        async def ask() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(source.serve)
                nursery.cancel_scope.cancel()

        open_log(evolve(Log(), level="warning", format="text"))
        trio.run(ask)
    return source.keyring
