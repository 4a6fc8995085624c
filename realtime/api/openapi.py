"""Corrections of the OpenAPI schema that FastAPI generates."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def without_null_parameters(openapi: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without ``null`` as a type of optional parameters: they can be omitted, but cannot be null."""
    for operations in openapi["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                types = [type_ for type_ in parameter["schema"].pop("anyOf", ()) if type_ != {"type": "null"}]
                if len(types) == 1:
                    parameter["schema"] |= types[0]
                elif types:
                    parameter["schema"]["anyOf"] = types
    return openapi


SCHEMES: dict[str, Any] = {
    "password": {
        "type": "oauth2",
        "description": "A name and a password, exchanged for a token that is valid for 15 minutes.",
        "flows": {
            "password": {
                "tokenUrl": "/auth/token",
                "scopes": {"read": "read notes", "write": "read and write notes"},
            }
        },
    },
    "token": {"type": "http", "scheme": "bearer", "description": "An API token (`rt_…`)."},
}
"""The security schemes for programs; the web app uses a cookie."""


def with_security(openapi: dict[str, Any], root_path: str) -> dict[str, Any]:
    """Return the schema for a server with accounts: operations that can respond with 401 need authentication."""
    schemes = deepcopy(SCHEMES)
    password = schemes["password"]["flows"]["password"]
    password["tokenUrl"] = root_path + password["tokenUrl"]
    openapi["components"]["securitySchemes"] = schemes
    required: list[dict[str, list[str]]] = [{"password": []}, {"token": []}]
    for operations in openapi["paths"].values():
        for operation in operations.values():
            operation.setdefault("security", required if "401" in operation["responses"] else [{}, *required])
    return openapi
