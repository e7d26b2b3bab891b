"""The source: where the commands that look at running daemons have their figures from, and how that fails.

Every failure is one sentence that says what to do: not reached, no token, no right, no broker, another version.

Bounds: `SECONDS` for each answer, and `BODY_BYTES` of it. Blocks; a connection is kept for the next question.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import click
from attrs import define, field, frozen

from broker import __version__
from broker.errors import DaemonNotAsked

SECONDS = 5.0
BODY_BYTES = 64 << 20
STATS_PATH = "/api/realtime/stats"
CLIENTS_PATH = "/api/realtime/clients"
CHANNELS_PATH = "/api/realtime/channels"

_MAKE_TOKEN = "`broker token create --user ops --admin` makes one"
_Command = TypeVar("_Command", bound=Callable[..., Any])


@frozen
class Address:
    """Which daemon is asked, and as whom: the options that every such command has.

    Args:
        node: one daemon of several, by its id; None for all together.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    node: str | None = None


def source_options(command: _Command) -> _Command:
    """Give a command the options that `Address` is made of: url, token, ca_file, node."""
    for option in reversed(
        (
            click.option(
                "--url",
                metavar="URL",
                envvar="BROKER_URL",
                default="http://127.0.0.1:8000",
                show_default=True,
                help="The daemon (environment: BROKER_URL).",
            ),
            click.option(
                "--token",
                metavar="TOKEN",
                envvar="BROKER_TOKEN",
                help="An admin token or key (environment: BROKER_TOKEN, which is not seen in the list of processes).",
            ),
            click.option(
                "--ca",
                "ca_file",
                metavar="FILE",
                type=click.Path(),
                help="PEM file of the certificates to trust in place of the system's (environment: SSL_CERT_FILE).",
            ),
            click.option("--node", metavar="ID", help="One daemon of those that share a Redis; default: all of them."),
        )
    ):
        command = option(command)
    return command


@define(eq=False)
class Source:
    """One daemon, asked over HTTP. A context manager: it keeps a connection.

    Raises:
        click.BadParameter: when it is made: the URL, the token or the file is none.
    """

    address: Address
    seconds: float = SECONDS
    _client: Any = field(init=False)
    _headers: Mapping[str, str] = field(init=False)
    url: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        import httpx

        from broker.doctor.target import Target, check_token

        given = self.address
        try:
            if given.token:
                check_token(given.token)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--token") from None
        try:
            target = Target.from_url(given.url, given.token or None, given.ca_file)
        except OSError as error:
            why = error.strerror or error
            raise click.BadParameter(f"cannot read {given.ca_file}: {why}", param_hint="--ca") from None
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--url") from None
        self.url = target.url
        self._headers = {"User-Agent": f"broker/{__version__}", **target.headers}
        # As for the doctor, no proxy of the environment: the daemon that is asked is the one that is named.
        self._client = httpx.Client(
            timeout=self.seconds, trust_env=False, verify=target.tls if target.tls is not None else False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def version(self) -> str:
        """The daemon's version.

        Raises:
            DaemonNotAsked: it cannot be asked.
        """
        status, body = self._get("/health", {})
        version = body.get("version")
        if status != 200 or not isinstance(version, str):
            raise DaemonNotAsked(f"{self.url}: what answers /health (HTTP {status}) is no broker; correct --url")
        return version

    def ask(self, path: str, parameters: Mapping[str, str | int | None]) -> dict[str, Any]:
        """The answer, a JSON object.

        Args:
            parameters: of the query; those that are None are left out.

        Raises:
            DaemonNotAsked: there is none; the message says why and what to do.
        """
        asked = {name: str(value) for name, value in parameters.items() if value is not None}
        if self.address.node is not None:
            asked["node"] = self.address.node
        status, body = self._get(path, asked)
        if status != 200:
            raise DaemonNotAsked(self._refusal(path, status, body))
        if not body:
            raise DaemonNotAsked(f"{self.url}: what answers {path} is no broker; correct --url")
        return body

    def _get(self, path: str, asked: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        import httpx

        try:
            with self._client.stream("GET", self.url + path, params=asked, headers=self._headers) as answer:
                data = b""
                for part in answer.iter_bytes():
                    data += part
                    if len(data) > BODY_BYTES:
                        raise DaemonNotAsked(f"{self.url}: its answer has over {BODY_BYTES} bytes; ask with --limit")
                return answer.status_code, _object(data)
        except httpx.TimeoutException:
            raise DaemonNotAsked(
                f"{self.url} does not answer within {self.seconds:g} s; see whether the daemon is stuck (its log)"
            ) from None
        except httpx.HTTPError as error:
            raise DaemonNotAsked(self._unreached(error)) from None

    def _unreached(self, error: Exception) -> str:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return f"{self.url}: its certificate is not trusted: {cause.verify_message}; --ca names one to trust"
            if isinstance(cause, ssl.SSLError):
                return f"{self.url} speaks no TLS ({cause.reason or cause}); try http"
            cause = cause.__cause__ or cause.__context__
        why = str(error) or type(error).__name__
        return f"cannot reach {self.url}: {why}; start the daemon, or name another with --url or BROKER_URL"

    def _refusal(self, path: str, status: int, body: Mapping[str, Any]) -> str:
        detail, hint = body.get("detail"), body.get("hint")
        if not isinstance(detail, str):
            return f"{self.url}: HTTP {status} at {path}: no broker answers there; correct --url"
        if status in (401, 403) and not self.address.token:
            return f"{self.url} needs an admin token: give one with --token or BROKER_TOKEN; {_MAKE_TOKEN}"
        if status == 401:
            return f"{self.url} refuses the token: {detail}; {_MAKE_TOKEN}"
        if status == 403:
            return f"{self.url}: the token is no admin's ({detail}); {_MAKE_TOKEN}"
        if status == 404 and self.address.node is None:
            return (
                f"{self.url} does not know {path}: the daemon's version is {self.version()}, this program's"
                f" {__version__}; use the program that belongs to the daemon"
            )
        return f"{self.url}: {detail}. {hint if isinstance(hint, str) else ''}".rstrip()


def other_version(version: str) -> str | None:
    """What to say where the daemon is of another version than this program; None where it is of the same."""
    if version == __version__:
        return None
    return f"the daemon's version is {version}, this program's {__version__}: figures may be missing"


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
