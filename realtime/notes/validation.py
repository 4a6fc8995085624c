"""Readable messages for the validation errors of notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def describe(errors: Iterable[Mapping[str, Any]]) -> str:
    """Return one message for all validation errors of Pydantic, with the name of the field before each error."""
    return "; ".join(f"{'.'.join(map(str, error['loc']))}: {_message(error)}".removeprefix(": ") for error in errors)


def _message(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).removeprefix("Value error, ")
