"""The index: items grouped by key."""

from __future__ import annotations

from realtime.core.index import Index


def test_index_returns_the_items_of_a_key_in_order() -> None:
    index: Index[str, int] = Index()
    for item in (3, 1, 2, 3):
        index.add("a", item)
    index.add("b", 4)
    assert [list(index[key]) for key in ("a", "b", "c")] == [[3, 1, 2], [4], []]


def test_index_keeps_no_empty_groups() -> None:
    index: Index[str, int] = Index()
    index.add("a", 1)
    index.add("a", 2)
    index.remove("a", 1)
    index.remove("a", 3)
    index.remove("b", 1)
    assert list(index["a"]) == [2]
    index.remove("a", 2)
    assert index["a"] == ()
