"""A channel of the document, with the operations on it.

Laws: the point of view is that of a program that uses the broker: it sends what it publishes or asks,
and receives what it is told. Messages are called by their names in `#/components/messages`.

Source: the AsyncAPI specification 3.0.0, "Channel Object", "Operation Object"; its bindings http 0.3.0
and ws 0.1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen

PART = "1 to 128 letters, digits and _ - . @ = + ~"


@frozen
class OperationObject:
    """One operation.

    Args:
        messages: those of the channel's messages that it is about.
        reply: what is answered, on the same channel; nothing where there is no answer.
    """

    name: str
    action: Literal["send", "receive"]
    messages: Sequence[str]
    reply: Sequence[str] = ()
    bindings: Mapping[str, Any] = field(factory=dict)

    def document(self, channel: str) -> dict[str, Any]:
        """Args: channel, the name of the channel that it is on."""
        here = {"$ref": f"#/channels/{channel}"}
        document: dict[str, Any] = {
            "action": self.action,
            "channel": here,
            "messages": _references(channel, self.messages),
        }
        if self.reply:
            document["reply"] = {"channel": here, "messages": _references(channel, self.reply)}
        if self.bindings:
            document["bindings"] = dict(self.bindings)
        return document


@frozen
class ChannelObject:
    """One channel. `parameters` are those in its address."""

    name: str
    address: str
    servers: Sequence[str]
    operations: Sequence[OperationObject]
    description: str
    parameters: Mapping[str, Any] = field(factory=dict)
    bindings: Mapping[str, Any] = field(factory=dict)

    def document(self) -> dict[str, Any]:
        messages = [name for operation in self.operations for name in (*operation.messages, *operation.reply)]
        document: dict[str, Any] = {"address": self.address, "description": self.description}
        if self.parameters:
            document["parameters"] = dict(self.parameters)
        document["messages"] = {name: {"$ref": f"#/components/messages/{name}"} for name in messages}
        document["servers"] = [{"$ref": f"#/servers/{name}"} for name in self.servers]
        if self.bindings:
            document["bindings"] = dict(self.bindings)
        return document


def http_operation(method: str, query: Mapping[str, Any] | None = None, required: Sequence[str] = ()) -> dict[str, Any]:
    """The bindings of an operation that is an HTTP request. `query` has a schema for each of its parameters."""
    http: dict[str, Any] = {"method": method, "bindingVersion": "0.3.0"}
    if query is not None:
        http["query"] = {"type": "object", "properties": dict(query)}
        if required:
            http["query"]["required"] = list(required)
    return {"http": http}


def _references(channel: str, messages: Sequence[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]
