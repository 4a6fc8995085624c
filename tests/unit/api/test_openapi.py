"""The OpenAPI schema of the application."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from realtime import create_app
from realtime.settings import Settings


def test_concurrent_requests_get_the_same_complete_schema(settings: Settings) -> None:
    app = create_app(settings)
    with ThreadPoolExecutor(8) as pool:
        schemas = list(pool.map(lambda _: app.openapi(), range(8)))
    assert all(schema is schemas[0] for schema in schemas)
    assert "Problem" in schemas[0]["components"]["schemas"]
