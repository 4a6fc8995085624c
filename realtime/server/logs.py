"""The format of log records: readable on a terminal, else one JSON object per line. Only this module uses structlog."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from realtime.settings import Settings

QUIET_LOGGERS = ("uvicorn.error", "uvicorn.access", "pymongo", "asyncio", "httpx", "httpcore", "websockets")

MULTILINE_FIELDS = ("exception", "stack")
"""Fields in which line feeds are preserved."""
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that control a terminal, break lines, or change the direction of text."""


def _escape_controls(logger: Any, method: str, event: EventDict) -> EventDict:
    """Escape control characters in a record, parts of which, such as paths, come from clients."""
    return {_escaped_text(name): _escaped_text(value, lines=name in MULTILINE_FIELDS) for name, value in event.items()}


def _escaped_text(value: Any, *, lines: bool = False) -> Any:
    """Return a value as text with escaped control characters. With ``lines``, line feeds are preserved."""
    if not isinstance(value, str):
        value = repr(value)  # the renderer would do the same, without escaping
    return "\n".join(
        CONTROL_CHARACTERS.sub(_escape_sequence, line) for line in (value.split("\n") if lines else [value])
    )


def _escape_sequence(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()


def configure(settings: Settings) -> None:
    """Send all log records to standard error, in the configured format."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared_processors: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=not console),
    ]
    final_processors: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if console:
        plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        final_processors += [structlog.processors.format_exc_info, _escape_controls, plain]
    else:
        final_processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared_processors, processors=final_processors)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # The client is at fault and gets a close code; uvicorn would log a traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not str(record.msg).startswith("Invalid UTF-8"))
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
