"""Every exception that the broker raises on purpose, as one tree.

    BrokerError
    ├── ChannelError        a channel name that the grammar refuses
    ├── ConfigError         settings that cannot be used; carries every problem at once
    ├── ListenError         an address that cannot be listened on
    ├── UpstreamError       Redis cannot be used: refused, unreachable, or gone
    │   └── UpstreamRefused     it answered, and said no: password, rights, database
    ├── WorkerError         a worker process that cannot start, or that did not end cleanly
    ├── ControlError        the control socket of this machine's daemon: none, not ours, or no sense in what it says
    │   └── TakeoverError       a takeover that did not happen: the daemon before goes on
    ├── DaemonNotAsked      a daemon whose figures cannot be had over HTTP
    ├── TokenRefused        a token that does not count; its reason is a stable word
    ├── EventError          an event that is not what its class says: names the field and its value
    ├── PublishError        the publisher library, asked to confirm: an event that Redis did not take
    ├── EvaluationError     an evaluation that cannot go on; its message is what the client is told
    └── SubscriberError     the subscriber library: what a reconnect cannot mend

Each message says what was wrong and what to do; the command line prints it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen


class BrokerError(Exception):
    """The root of the tree. `str()` is one line that a person can act on."""


class ChannelError(BrokerError):
    """A channel that a client or a service named wrongly."""


@frozen
class Problem:
    """One thing wrong with the settings.

    Args:
        where: the setting and its source, such as `broker.toml: clients.outbox_max_bytes`.
        what: what is wrong with its value and what to write instead.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ConfigError(BrokerError):
    """Settings that cannot be used. `problems` holds all of them, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class ListenError(BrokerError):
    """An address that cannot be listened on: taken, not ours, or not allowed."""


class UpstreamError(BrokerError):
    """Redis cannot be used right now. Trying again may help."""


class UpstreamRefused(UpstreamError):
    """Redis answered and refused: trying again with the same settings cannot help."""


class WorkerError(BrokerError):
    """A worker process of the daemon that cannot start, or that did not end cleanly."""


class ControlError(BrokerError):
    """A control socket that cannot be had, or a daemon behind it that cannot be asked."""


class TakeoverError(ControlError):
    """A takeover that did not happen. The daemon that was to be taken over from goes on."""


class DaemonNotAsked(BrokerError):
    """A daemon whose figures cannot be had: it is not reached, refuses, or is none."""


class TokenRefused(BrokerError):
    """A token that does not count. `str()` is a sentence for whoever sent it: nothing of the token is in it
    but names, escaped and cut.

    Args:
        reason: one of malformed, too_long, critical_header, wrong_type, algorithm, unknown_key, bad_signature,
            expired, not_yet, no_expiry, wrong_issuer, wrong_audience, no_subject, bad_claim; revoked; of an API
            key unknown_api_key.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EventError(BrokerError):
    """An event that is not what its class says. `str()` names the field by its path, and its value."""


class PublishError(BrokerError):
    """An event that Redis did not take, told to a caller who asked for a confirmation."""


class EvaluationError(BrokerError):
    """An evaluation that cannot go on. `str()` is told to whoever watches it: no secrets, no paths."""


class SubscriberError(BrokerError):
    """The daemon refused this subscriber; reconnecting cannot mend it."""
