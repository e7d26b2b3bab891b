"""The key source: the keys that tokens are checked with, from the settings to the ones that count right now.

A secret; a PEM file; a JWK set from a file or a URL. A URL is asked every `auth.jwks_refresh_seconds`, sooner after a
failure, and when a token names a key that is not there. Files are looked at as often, and at least every
`FILE_SECONDS`.

Laws: a client waits for a host at most `auth.jwks_timeout_seconds`, whatever the host does. However many tokens
name keys that nobody has, the host is asked at most once in `ASK_SECONDS`, and all who wait share the answer. The
daemon starts without the host. A change is one line in the log, not one a try.

Concurrency: the task of `serve` does all asking; whoever waits for it may be cancelled without harm to others.
Bounds: those of `keyring.py`, `keptset.py`, `keyhost.py` and `keyfile.py`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import trio
from attrs import define, field

from broker.auth.keptset import KeptSet
from broker.auth.keyring import Keyring
from broker.config.access import Auth
from broker.config.secret import mask_url
from broker.errors import ConfigError, Problem
from broker.keyfile import KeyFile
from broker.keyhost import KeyHost, KeysMissing
from broker.timestamp import timestamp

ASK_SECONDS = 5.0
FILE_SECONDS = 5.0
FIRST_RETRY_SECONDS = 1.0
_JITTER = 0.1

log = structlog.get_logger(__name__)


@define(eq=False)
class KeySource:
    """The keys of one daemon. Files must be good when it is made.

    Raises:
        ConfigError: the secret or a file cannot be used.
    """

    _section: Auth
    _static: Keyring = field(init=False)  # of the secret and the PEM file
    _secret: Keyring = field(init=False)
    _pem: KeyFile | None = field(init=False, default=None)
    _jwks_file: KeyFile | None = field(init=False, default=None)
    _host: KeyHost | None = field(init=False, default=None)
    _set: KeptSet = field(init=False)
    _keyring: Keyring = field(init=False)  # all of them, of `_merged_from`
    _merged_from: tuple[Keyring, Keyring] | None = field(init=False, default=None)
    _wanted: trio.Event | None = field(init=False, default=None)  # while the host may be asked out of turn
    _answered: trio.Event | None = field(init=False, default=None)  # while it is being asked
    _asked_at: float = field(init=False, default=-ASK_SECONDS)
    _looked_at: float = field(init=False, default=-FILE_SECONDS)
    _refreshes: int = field(init=False, default=0)
    _failures: int = field(init=False, default=0)
    _failures_in_a_row: int = field(init=False, default=0)
    _refreshed_at: float | None = field(init=False, default=None)
    _turn: trio.CancelScope | None = field(init=False, default=None)  # of `serve`, until the settings change
    _told: int = field(init=False, default=0)  # how many keys there were when the log was last looked after

    def __attrs_post_init__(self) -> None:
        section = self._section
        self._set = KeptSet(section.jwks_grace_seconds)
        problems: list[Problem] = []
        try:
            self._secret = Keyring.from_secret(section.secret)
        except ValueError as error:
            problems.append(Problem("auth.secret", str(error)))
        try:
            if section.key_file:
                self._pem = KeyFile(Path(section.key_file), Keyring.from_pem)
        except ValueError as error:
            problems.append(Problem("auth.key_file", f"{section.key_file!a} {error}"))
        try:
            if "://" in section.jwks:
                self._host = KeyHost(section.jwks)
            elif section.jwks:
                self._jwks_file = KeyFile(Path(section.jwks), Keyring.from_jwks)
                self._set.replace(self._jwks_file.keyring, 0.0)
        except ValueError as error:
            problems.append(Problem("auth.jwks", f"{section.jwks!a} {error}"))
        if problems:
            raise ConfigError(problems)
        self._static = self._secret | (self._pem.keyring if self._pem else Keyring())

    @property
    def is_on(self) -> bool:
        """Whether authentication is on."""
        return self._section.is_on

    @property
    def keyring(self) -> Keyring:
        """The keys that count now. Synchronous; merged anew only where something has changed."""
        kept = self._set.keyring(0.0 if self._set.is_whole else trio.current_time())
        if self._merged_from is None or self._merged_from[0] is not self._static or self._merged_from[1] is not kept:
            self._merged_from = (self._static, kept)
            self._keyring = self._static | kept
        return self._keyring

    async def await_key(self) -> None:
        """Wait until the sources have been asked for a key that is not there, if they may be.

        Returns after `auth.jwks_timeout_seconds` at the latest; whether the key is there then is for the caller
        to see. At once where nothing is to be asked, or was asked a moment ago: a limit for each key that a token
        names would be none, as anybody can invent names.
        """
        if trio.current_time() >= self._looked_at + FIRST_RETRY_SECONDS:
            self._look_at_files()
        if self._answered is None:
            if self._wanted is None or trio.current_time() < self._asked_at + ASK_SECONDS:
                return
            self._answered = trio.Event()
            self._wanted.set()
        with trio.move_on_after(self._section.jwks_timeout_seconds):
            await self._answered.wait()

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the keys fresh. Ready when the host has answered or failed, or had `auth.jwks_timeout_seconds`.

        Runs until cancelled; raises nothing.
        """
        while True:
            with trio.CancelScope() as self._turn:
                await self._serve(task_status)
            task_status = trio.TASK_STATUS_IGNORED

    def adapt(self, fresh: KeySource) -> None:
        """Go by the settings of a source that was just made, and is not served. Synchronous.

        The JWK set that there is stays where it is still to come from the same place.
        """
        before, self._section = self._section, fresh._section
        self._static, self._secret, self._pem = fresh._static, fresh._secret, fresh._pem
        if self._section.jwks == before.jwks:
            self._set.adapt(self._section.jwks_grace_seconds, trio.current_time())
        else:
            self._jwks_file, self._host, self._set = fresh._jwks_file, fresh._host, fresh._set
        self._merged_from = None
        if self._answered is not None:
            self._answered.set()
        self._answered = self._wanted = None
        if self._turn is not None:
            self._turn.cancel()

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            if self._host is not None:
                self._answered = answered = trio.Event()
                nursery.start_soon(self._ask_again_and_again, self._host)
                with trio.move_on_after(self._section.jwks_timeout_seconds):
                    await answered.wait()
            task_status.started()
            while True:
                await trio.sleep(min(FILE_SECONDS, self._section.jwks_refresh_seconds))
                self._look_at_files()
                self._tell_of_loss()

    def statistics(self) -> Mapping[str, Any]:
        """Keys that count now; how often the JWK set was read and could not be since the start; when it was last."""
        return {
            "keys": len(self.keyring.keys),
            "refreshes": self._refreshes,
            "failures": self._failures,
            "refreshedAt": None if self._refreshed_at is None else timestamp(self._refreshed_at),
        }

    async def _ask_again_and_again(self, host: KeyHost) -> None:
        while True:
            self._asked_at = trio.current_time()
            if self._answered is None:
                self._answered = trio.Event()
            try:
                self._take(await host.fetch())
            except KeysMissing as missing:
                self._miss(str(missing))
            self._answered.set()
            self._answered = None
            self._wanted = trio.Event()
            with trio.move_on_after(self._pause()):
                await self._wanted.wait()
            self._wanted = None

    def _pause(self) -> float:
        seconds = self._section.jwks_refresh_seconds
        if self._failures_in_a_row:
            seconds = min(seconds, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures_in_a_row - 1, 20))
        # So that many daemons do not ask at once.
        return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)

    def _look_at_files(self) -> None:
        self._looked_at = trio.current_time()
        if self._pem is not None:
            try:
                if self._pem.look():
                    self._static = self._secret | self._pem.keyring
                    log.info("key file read again", file=str(self._pem.path), keys=len(self._pem.keyring.keys))
            except ValueError as error:
                log.warning("key file cannot be used; its keys stay", file=str(self._pem.path), why=str(error))
        if self._jwks_file is not None:
            try:
                if self._jwks_file.look():
                    self._take(self._jwks_file.keyring)
            except ValueError as error:
                self._miss(str(error))

    def _take(self, keyring: Keyring) -> None:
        """The JWK set has come."""
        before = self.keyring
        self._set.replace(keyring, trio.current_time())
        self._refreshes += 1
        self._refreshed_at = time.time()
        if self._failures_in_a_row or self.keyring != before:
            log.info("JWK set read", jwks=self._place, keys=len(keyring.keys))
        self._failures_in_a_row = 0

    def _miss(self, why: str) -> None:
        """The JWK set has not come."""
        before = len(self.keyring.keys)
        self._set.miss(trio.current_time())
        self._failures += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row == 1:
            grace = self._section.jwks_grace_seconds
            log.warning("JWK set cannot be read", jwks=self._place, why=why, keys=before, keys_stay_seconds=grace)

    def _tell_of_loss(self) -> None:
        count = len(self.keyring.keys)
        if count < self._told:
            log.warning("keys of tokens count no more: their grace is over", keys=count)
        self._told = count

    @property
    def _place(self) -> str:
        return mask_url(self._section.jwks) if self._host is not None else self._section.jwks
