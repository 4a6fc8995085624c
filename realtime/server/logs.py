"""How log records look: for people on a terminal, one JSON object a line otherwise. The only importer of structlog."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from realtime.settings import Settings

QUIET = ("uvicorn.error", "uvicorn.access", "pymongo", "asyncio", "httpx", "httpcore", "websockets")

MULTILINE = ("exception", "stack")
"""Fields whose line feeds are kept."""
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, which make a terminal do things, and those that change the direction or the line of a text."""


def _without_controls(logger: Any, method: str, event: EventDict) -> EventDict:
    """Escape control characters in a record: clients choose paths and other parts of it."""
    return {_plain(name): _plain(value, lines=name in MULTILINE) for name, value in event.items()}


def _plain(value: Any, *, lines: bool = False) -> Any:
    """Return a value without control characters, but with its line feeds if it has ``lines``."""
    if not isinstance(value, str):
        value = repr(value)  # as the renderer would; nothing is left to what a value says of itself
    return "\n".join(CONTROLS.sub(_escaped, line) for line in (value.split("\n") if lines else [value]))


def _escaped(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()


def configure(settings: Settings) -> None:
    """Sends all log records to standard error in the form that the settings ask for."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=not console),
    ]
    last: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if console:
        plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        last += [structlog.processors.format_exc_info, _without_controls, plain]
    else:
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # A client's fault, answered with a close code; uvicorn tells it with a traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not str(record.msg).startswith("Invalid UTF-8"))
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
