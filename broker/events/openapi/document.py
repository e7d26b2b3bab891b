"""The whole document: paths, and the schemas and refusals that they name. Source: the OpenAPI specification 3.1.1."""

from __future__ import annotations

from typing import Any

from broker import __version__
from broker.events.asyncapi.messages import MESSAGES, SCHEMAS
from broker.events.openapi.answers import ANSWERS
from broker.events.openapi.operation import EVERYWHERE, SECURITY_SCHEMES, name_of, refusal
from broker.events.openapi.paths import paths

HOST = "127.0.0.1:8000"
_ABOUT = (
    "What is asked of the daemon over HTTP. Tokens are asked for where authentication is on. The WebSocket, and the "
    "events of streams, are described by the AsyncAPI document (`broker schema --asyncapi`)."
)
# Of what a submission is made, as the AsyncAPI document has it.
_SHARED = ("ChannelName", "Channel", "SubmissionItem")
_MESSAGES = ("Submission", "SubmissionTaken")


def openapi_document(host: str = HOST) -> dict[str, Any]:
    """The document, ready to be JSON.

    Args:
        host: `HOST:PORT` of the daemon.
    """
    found = paths()
    refusals = {status for methods in found.values() for each in methods.values() for status in each.refusals}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "broker",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "servers": [{"url": f"http://{host}"}],
        "paths": {
            path: {method: operation.document(_id(method, path)) for method, operation in methods.items()}
            for path, methods in found.items()
        },
        "components": {
            "schemas": {
                **{name: SCHEMAS[name] for name in _SHARED},
                **{name: MESSAGES[name].schema for name in _MESSAGES},
                **ANSWERS,
            },
            "responses": {name_of(status): refusal(status) for status in sorted({401, *EVERYWHERE, *refusals})},
            "securitySchemes": dict(SECURITY_SCHEMES),
        },
    }


def _id(method: str, path: str) -> str:
    """A name for the operation, such as `get_api_realtime_stats`."""
    words = path.translate(str.maketrans("/-.", "___", "{}")).strip("_")
    return f"{method}_{words or 'console'}"
