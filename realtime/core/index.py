"""An index: items grouped by key."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Hashable)


class Index(Generic[K, T]):
    """Groups items by key, in the order in which they were added. A key without items takes no memory."""

    def __init__(self) -> None:
        self._groups: dict[K, dict[T, None]] = {}

    def __getitem__(self, key: K) -> Collection[T]:
        """Return the items of a key. The result is invalid after the next change of the index."""
        return self._groups.get(key, ())

    def add(self, key: K, item: T) -> None:
        """Add an item to a key. An item that the key already has keeps its position."""
        self._groups.setdefault(key, {})[item] = None

    def remove(self, key: K, item: T) -> None:
        """Remove an item from a key, if the key has it."""
        group = self._groups.get(key)
        if group is not None:
            group.pop(item, None)
            if not group:
                del self._groups[key]
