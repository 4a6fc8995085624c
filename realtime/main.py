"""The application for ``uvicorn realtime.main:app`` and ``fastapi run``, configured by environment variables."""

from __future__ import annotations

import sys

from realtime.app import create_app


def _announce(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


app = create_app(announce=_announce)
