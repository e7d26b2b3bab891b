"""The log: structlog on standard error, key=value on a terminal, else one JSON object a line.

Law: no line holds what looks like a token or an API key, whatever was sent and wherever it is quoted. What libraries
say through the standard library's logging, from warnings on, comes out in the same form.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from broker.auth.credential import without_secrets
from broker.config.sections import Log

_facts: dict[str, object] = {}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def name_process(**facts: object) -> None:
    """Have facts in every line of this process, which is one of several that write to the same log."""
    _facts.update(facts)


# The loggers keep this list, so that what is in it can be changed under them.
_processors: list[Any] = []
_least = logging.INFO


class _Logger(structlog.make_filtering_bound_logger(logging.DEBUG)):  # type: ignore[misc]
    """Asks for the least level at each line, as loggers are made once. `error` is always written."""

    def debug(self, event: str | None = None, *args: Any, **facts: Any) -> Any:
        return super().debug(event, *args, **facts) if _least <= logging.DEBUG else None

    def info(self, event: str | None = None, *args: Any, **facts: Any) -> Any:
        return super().info(event, *args, **facts) if _least <= logging.INFO else None

    def warning(self, event: str | None = None, *args: Any, **facts: Any) -> Any:
        return super().warning(event, *args, **facts) if _least <= logging.WARNING else None

    def log(self, level: int, event: str, *args: Any, **facts: Any) -> Any:
        return super().log(level, event, *args, **facts) if _least <= level else None


def open_log(section: Log) -> None:
    """Set the whole process's log up: before the first line, and again when the settings change."""
    global _least
    _least = _LEVELS[section.level]
    as_text = section.format == "text" or (section.format == "auto" and sys.stderr.isatty())
    processors: list[Any] = [
        _add_facts,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if as_text:
        render: Any = structlog.processors.KeyValueRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True
        )
    else:
        render = structlog.processors.JSONRenderer()
    # Before it is rendered: a mask over half of an escape would leave a line that is no JSON.
    processors += [structlog.processors.format_exc_info, _mask, render]
    _processors[:] = processors
    structlog.configure(
        processors=_processors,
        wrapper_class=_Logger,
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)


def _add_facts(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**line, **_facts}


def _mask(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: _masked(value) for name, value in line.items()}


def _masked(value: object) -> object:
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _masked(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(each) for each in value]
    return without_secrets(value if isinstance(value, str) else repr(value))


class _Bridge(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        logger.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
