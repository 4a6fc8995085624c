"""Corrections of the OpenAPI description that FastAPI makes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def without_null_parameters(openapi: dict[str, Any]) -> dict[str, Any]:
    """The description with optional parameters as what they are: a query or a header can be left out, but not null."""
    for operations in openapi["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                kinds = [kind for kind in parameter["schema"].pop("anyOf", ()) if kind != {"type": "null"}]
                if len(kinds) == 1:
                    parameter["schema"] |= kinds[0]
                elif kinds:
                    parameter["schema"]["anyOf"] = kinds
    return openapi


SCHEMES: dict[str, Any] = {
    "password": {
        "type": "oauth2",
        "description": "A name and a password, for 15 minutes.",
        "flows": {
            "password": {
                "tokenUrl": "/auth/token",
                "scopes": {"read": "a token that only reads", "write": "a token that writes, too"},
            }
        },
    },
    "token": {"type": "http", "scheme": "bearer", "description": "An API token: `rt_…`."},
}
"""The ways for a program to say who it is; a page has its cookie."""


def with_security(openapi: dict[str, Any], root_path: str) -> dict[str, Any]:
    """The description of a server with accounts: what can answer 401 needs somebody who is signed in."""
    schemes = deepcopy(SCHEMES)
    password = schemes["password"]["flows"]["password"]
    password["tokenUrl"] = root_path + password["tokenUrl"]
    openapi["components"]["securitySchemes"] = schemes
    needed: list[dict[str, list[str]]] = [{"password": []}, {"token": []}]
    for operations in openapi["paths"].values():
        for operation in operations.values():
            operation.setdefault("security", needed if "401" in operation["responses"] else [{}, *needed])
    return openapi
