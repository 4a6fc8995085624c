"""The application for ``uvicorn realtime.main:app`` and ``fastapi run``, set by the environment."""

from realtime.app import create_app

app = create_app()
