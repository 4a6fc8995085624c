"""Who is where: the highest clock counts, who is gone is told to all, and who comes back learns of it."""

from __future__ import annotations

import pytest

from realtime import lib0
from realtime.errors import MalformedUpdate
from realtime.rooms import awareness
from realtime.rooms.awareness import OUTDATED, Awareness, signed


def states(*entries: tuple[int, int, str]) -> bytes:
    return lib0.number(len(entries)) + b"".join(
        lib0.number(client) + lib0.number(clock) + lib0.string(state) for client, clock, state in entries
    )


def test_only_news_are_passed_on() -> None:
    room = Awareness()
    one = states((1, 1, '{"a":1}'))
    assert room.take(one, 0) == (one, {1}, b"")
    assert room.take(one, 1) == (b"", set(), b"")
    assert room.take(states((1, 0, "{}")), 1) == (b"", set(), b"")
    newer = states((1, 2, "{}"))
    assert room.take(newer, 1) == (newer, set(), b"")
    assert room.everyone() == newer
    assert room.named(newer) == {1}


def test_a_client_has_one_state_in_a_message() -> None:
    with pytest.raises(MalformedUpdate, match="twice"):
        Awareness().take(states((1, 1, "{}"), (1, 2, "{}")), 0)


def test_who_leaves_is_gone_at_the_clock_it_had_and_comes_back_with_the_next() -> None:
    room, elsewhere = Awareness(), Awareness()
    for one in (room, elsewhere):
        one.take(states((1, 5, "{}")), 0)
    gone = room.leave({1, 2}, 1)
    assert gone == states((1, 5, "null"))
    assert room.everyone() == b""
    assert room.leave({1}, 1) == b""
    assert elsewhere.take(gone, 1) == (gone, set(), b"")
    assert elsewhere.everyone() == b""
    assert room.take(states((1, 5, "{}")), 2) == (b"", set(), gone)  # it is told that it is thought gone
    back = states((1, 6, "{}"))
    assert room.take(back, 3) == (back, {1}, b"")


def test_who_says_nothing_is_gone_and_then_forgotten() -> None:
    room = Awareness()
    room.take(states((1, 1, "{}"), (2, 1, "{}")), 0)
    room.take(states((2, 2, "{}")), OUTDATED)
    assert room.expire(OUTDATED) == b""
    assert room.expire(OUTDATED + 1) == states((1, 1, "null"))
    assert room.everyone() == states((2, 2, "{}"))
    room.expire(3 * OUTDATED)
    room.expire(5 * OUTDATED)
    assert room.take(states((1, 1, "{}")), 5 * OUTDATED)[1] == {1}


@pytest.mark.parametrize("state", ["", "{", "NaN", '[1, -Infinity, "a"]', "'a'", "[" * 8000, '"' + "x" * 8192 + '"'])
def test_a_state_that_others_cannot_read_is_refused_with_all_else(state: str) -> None:
    room = Awareness()
    with pytest.raises(MalformedUpdate):
        room.take(states((1, 1, "{}"), (2, 1, state)), 0)
    assert room.everyone() == b""


@pytest.mark.parametrize("data", [b"", b"\1", b"\1\1\1", b"\2\1\1\2{}", states((1, 1, "{}")) + b"\0"])
def test_what_is_no_list_of_states_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        Awareness().take(data, 0)


def test_there_is_a_limit_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awareness, "MAX_CLIENTS", 2)
    room = Awareness()
    room.take(states((1, 1, "{}"), (2, 1, "{}")), 0)
    with pytest.raises(MalformedUpdate, match="too many"):
        room.take(states((3, 1, "{}")), 0)


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ('{"user":{"name":" Ada "}}', "Ada"),
        ('{"user":{"name":"' + "x" * 99 + '"}}', "x" * 40),
        ('{"user":{"name":7}}', None),
        ('{"user":"Ada"}', None),
        ("[]", None),
        ("null", None),
        ('{"user":{"name":"  "}}', None),
    ],
)
def test_names(state: str, name: str | None) -> None:
    room = Awareness()
    room.take(states((1, 1, state)), 0)
    assert room.name_of([9, 1]) == name


def test_signed_states_have_the_name_and_keep_the_rest() -> None:
    told = states((1, 4, '{"user":{"name":"root","color":"red"},"cursor":[1,"\\ud800"]}'), (2, 1, "null"), (3, 1, "[]"))
    assert signed(told, "ann") == states(
        (1, 4, '{"user":{"name":"ann","color":"red"},"cursor":[1,"\\ud800"]}'), (2, 1, "null"), (3, 1, "[]")
    )
    assert signed(states((1, 1, '{"user":"root"}')), "ann") == states((1, 1, '{"user":{"name":"ann"}}'))
    assert signed(states((1, 1, '{"cursor":null}')), "ann") == states((1, 1, '{"cursor":null}'))
    for bad in ("{", "NaN", "[" * 8000):
        with pytest.raises(MalformedUpdate):
            signed(states((1, 1, bad)), "ann")
