"""An AsyncAPI 3.0 document of what clients and services do: `asyncapi_document` makes it."""

from __future__ import annotations

from broker.events.asyncapi.document import asyncapi_document

__all__ = ["asyncapi_document"]
