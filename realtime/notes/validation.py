"""Validation errors of notes in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def describe(errors: Iterable[Mapping[str, Any]]) -> str:
    """What is wrong, for people: each field and what it must be."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in map(_plainly, errors)
    )


def _plainly(error: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**error, "msg": str(error["msg"]).removeprefix("Value error, ")}
