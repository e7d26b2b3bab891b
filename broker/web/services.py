"""What the web app is given: the parts of the daemon that answer, by name; and each request as the door read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, frozen

from broker.auth.identity import ANONYMOUS, OPEN, Identity
from broker.auth.rules import RuleBook
from broker.control import Control
from broker.gate import Gate
from broker.nodes.survey import Survey
from broker.origins import Origins
from broker.publishing import Publishing
from broker.readiness import Readiness
from broker.request import Request, RequestRefused, unauthorized
from broker.submission import Origin
from broker.visit import Visit


@frozen
class Asked:
    """A request on its connection."""

    request: Request
    visit: Visit

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(self.request.headers)}
        return Origin(self.request.address, headers)


@define(eq=False)
class Services:
    """The parts.

    Args:
        metrics_http: `metrics.http`.
        metrics: makes the text of the figures.
        console_http: `console.http`.
        is_dev: whether the daemon was started with `--dev`.
    """

    survey: Survey
    publishing: Publishing
    gate: Gate
    rules: RuleBook
    control: Control
    origins: Origins
    readiness: Readiness
    metrics_http: str
    metrics: Callable[[], Awaitable[bytes]]
    console_http: str
    is_dev: bool

    async def identify(self, asked: Asked) -> Identity:
        """Who sends a request.

        Raises:
            RequestRefused: a token that does not count.
        """
        identity = await self.gate.identify(asked.request)
        asked.visit.user_id = identity.user_id or identity.name
        return identity

    async def check_admin(self, asked: Asked, *, changes: bool) -> None:
        """Refuse who may not use the admin calls.

        Args:
            changes: the call changes something: without authentication it is for this machine only.

        Raises:
            RequestRefused: 401 or 403.
        """
        identity = await self.identify(asked)
        if identity.kind == OPEN:
            if changes:
                asked.origin.check(self.origins.allowed)
        elif identity.kind == ANONYMOUS:
            raise unauthorized("this needs an admin token or an admin API key")
        elif not identity.is_admin:
            raise RequestRefused(
                403,
                "this needs the right to administrate",
                "Use a token with broker_admin: true, or a key of auth.admin_keys.",
            )
