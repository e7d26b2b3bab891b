"""The gate: who is it that asks? A request, or a token in a message, becomes an identity or is refused.

Laws: while authentication is off nobody is asked, and the query names the user. While it is on, a token that is
not good is refused, never taken for no token. No message holds a token.

Concurrency: `identify` and `look_at` wait only where a token names a key that is not known: for the key source,
at most `auth.jwks_timeout_seconds`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import structlog
import trio
from attrs import Factory, define, field

from broker.auth.apikey import ApiKeys
from broker.auth.credential import COOKIE, credential_of
from broker.auth.identity import ANONYMOUS, NOBODY, OPEN, Identity
from broker.auth.revocation import Revocations
from broker.auth.token import TokenReader
from broker.config.access import Auth, Rules
from broker.errors import TokenRefused
from broker.keysource import KeySource
from broker.origins import Origins
from broker.request import Request, RequestRefused, unauthorized

log = structlog.get_logger(__name__)

_UNKNOWN_KEY = "unknown_key"
_FAILED = "failed"
_REVOKED = "revoked"
_ANONYMOUS = Identity(ANONYMOUS)


@define(eq=False)
class Gate:
    """Says who somebody is.

    Args:
        clock: seconds since 1970.
    """

    _section: Auth
    _rules: Rules
    _keys: KeySource
    _origins: Origins
    revocations: Revocations
    clock: Callable[[], float] = time.time
    _tokens: TokenReader = field(init=False)
    _api_keys: ApiKeys = field(init=False)
    _refused: Counter[str] = Factory(Counter)
    _nursery: trio.Nursery | None = None

    def __attrs_post_init__(self) -> None:
        self._tokens = TokenReader(self._section)
        self._api_keys = ApiKeys(self._section)

    def adapt(self, section: Auth, rules: Rules) -> None:
        """Go by other settings from here on; the key source has its own."""
        self._section, self._rules = section, rules
        self._tokens = TokenReader(section)
        self._api_keys = ApiKeys(section)

    @property
    def is_on(self) -> bool:
        """Whether authentication is on."""
        return self._keys.is_on

    @property
    def patience_seconds(self) -> float:
        """How long a client may be nobody before it sends its token."""
        return self._section.authenticate_seconds

    @property
    def lets_anonymous_in(self) -> bool:
        """Whether a rule says anything of clients without a token."""
        return bool(self._rules.anonymous_subscribe or self._rules.anonymous_publish)

    async def identify(self, request: Request) -> Identity:
        """Who sends a request; `ANONYMOUS` where nothing says so.

        Raises:
            RequestRefused: 401 for a token that does not count, 403 where the query names another user.
        """
        claimed = self.claimed_user(request)
        if not self.is_on:
            return NOBODY if claimed is None else Identity(OPEN, claimed)
        credential = credential_of(request, self._section)
        if credential is None:
            return _ANONYMOUS
        if credential.kind == COOKIE and not self._origins.cookie_may_count(request):
            raise RequestRefused(
                403,
                "the request has a cookie, and does not say that it comes from a page of an allowed origin",
                "Add the page's origin to listen.allowed_origins, or send the token as Authorization: Bearer.",
            )
        try:
            identity = await self.look_at(credential.text)
        except TokenRefused as refused:
            raise unauthorized(str(refused), invalid=True) from None
        if claimed is not None and identity.user_id is not None and claimed != identity.user_id:
            raise RequestRefused(
                403, "userId names another user than the token", "Leave userId out; the token's sub is the user."
            )
        return identity

    def claimed_user(self, request: Request) -> str | None:
        """Who the query says that it is."""
        return request.asked("userId")

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what `look_at_soon` leaves to be done. Runs until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def look_at_soon(self, text: str, told: Callable[[Identity | TokenRefused], None]) -> None:
        """Say whose token it is: at once, but where its key is to be asked for. Synchronous."""
        found: Identity | TokenRefused
        try:
            found = self.read(text)
        except TokenRefused as refused:
            found = refused
            if refused.reason == _UNKNOWN_KEY and self._nursery is not None:
                self._nursery.start_soon(self._look_at_later, text, told)
                return
            self._refused[refused.reason] += 1
        told(found)

    async def _look_at_later(self, text: str, told: Callable[[Identity | TokenRefused], None]) -> None:
        found: Identity | TokenRefused
        try:
            found = await self.look_at(text)
        except TokenRefused as refused:
            found = refused
        except Exception:
            # Who waits for the answer is held until it comes.
            log.exception("a token could not be looked at")
            found = TokenRefused(_FAILED, "the daemon could not look at it; its log says why")
        told(found)

    async def look_at(self, text: str) -> Identity:
        """Whose token or API key it is.

        Raises:
            TokenRefused: it does not count.
        """
        try:
            try:
                return self.read(text)
            except TokenRefused as refused:
                if refused.reason != _UNKNOWN_KEY:
                    raise
            await self._keys.await_key()
            return self.read(text)
        except TokenRefused as refused:
            self._refused[refused.reason] += 1
            raise

    def read(self, text: str) -> Identity:
        """As `look_at`, with the keys that are known. Synchronous.

        Raises:
            TokenRefused: it does not count; with the reason `unknown_key` perhaps only not yet.
        """
        identity = self._api_keys.identify(text)
        if identity is not None:
            return identity
        now = self.clock()
        identity = self._tokens.read(text, self._keys.keyring, now)
        if self.revocations.holds(identity, now):
            raise TokenRefused(_REVOKED, "the token was revoked; get a new one")
        return identity

    def check_still(self, identity: Identity) -> None:
        """Raises RequestRefused where a token that counted has been revoked, or is over, since: to be called right
        before its client is counted in, when somebody was waited for after `identify`."""
        why = self.objection(identity)
        if why is not None:
            raise unauthorized(why, invalid=True)

    def objection(self, identity: Identity) -> str | None:
        """Why a token that counted does not any more; None where it does."""
        now = self.clock()
        if self.revocations.holds(identity, now):
            return "the token was revoked; get a new one"
        if identity.expires_at is not None and identity.expires_at <= now:
            return "the token is over; get a new one"
        return None

    def statistics(self) -> Mapping[str, Any]:
        """Whether authentication is on; tokens refused since the start, by reason; keys and revocations now."""
        return {
            "isOn": self.is_on,
            "refused": dict(self._refused),
            "revoked": self.revocations.statistics(),
            "keys": self._keys.statistics(),
        }
