"""A real-time notes server: REST writes to MongoDB, Redis pub/sub, and every connected client live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from realtime.version import __version__

if TYPE_CHECKING:
    from realtime.app import create_app

__all__ = ["__version__", "create_app"]


def __getattr__(name: str) -> Any:
    # Lazy, so that the command line and the keeper of the embedded servers start without the web framework.
    if name == "create_app":
        from realtime.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
