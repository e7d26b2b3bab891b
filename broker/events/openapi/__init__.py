"""An OpenAPI 3.1 document of what is asked of the daemon over HTTP: `openapi_document` makes it."""

from __future__ import annotations

from broker.events.openapi.document import openapi_document

__all__ = ["openapi_document"]
