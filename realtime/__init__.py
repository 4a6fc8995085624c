"""A real-time notes server: it stores REST writes in MongoDB, and sends changes to all connected clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from realtime.version import __version__

if TYPE_CHECKING:
    from realtime.app import create_app

__all__ = ["__version__", "create_app"]


def __getattr__(name: str) -> Any:
    # Lazy, so that the command line and the supervisor of the embedded servers do not import the web framework.
    if name == "create_app":
        from realtime.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
