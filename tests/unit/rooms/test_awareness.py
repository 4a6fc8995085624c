"""The states of clients in a room: the highest clock takes precedence, and invalid states are rejected."""

from __future__ import annotations

import pytest

from realtime.errors import MalformedUpdate
from realtime.rooms import lib0
from realtime.rooms.awareness import MAX_CLOCK, OUTDATED, Awareness, ClientState, checked, count_of, decoded


def states(*entries: tuple[int, int, str]) -> bytes:
    return lib0.number(len(entries)) + b"".join(
        lib0.number(client) + lib0.number(clock) + lib0.string(state) for client, clock, state in entries
    )


def test_take_returns_only_news() -> None:
    room = Awareness()
    one = ClientState(1, 1, '{"a":1}')
    assert room.take([one], 0) == ([one], b"")
    assert room.take([one], 1) == ([], b"")
    assert room.take([ClientState(1, 0, "{}")], 1) == ([], b"")
    newer = ClientState(1, 2, "{}")
    assert room.take([newer], 1) == ([newer], b"")
    assert room.everyone() == states((1, 2, "{}"))
    assert len(room) == 1


def test_take_ignores_clocks_that_leave_no_room_to_go_on() -> None:
    room = Awareness()
    last = ClientState(1, MAX_CLOCK, "{}")
    assert room.take([ClientState(2, MAX_CLOCK + 1, "{}"), last], 0) == ([last], b"")
    assert room.everyone() == states((1, MAX_CLOCK, "{}"))


def test_client_that_left_is_gone_at_its_clock_and_returns_with_the_next() -> None:
    room = Awareness()
    room.take([ClientState(1, 5, "{}")], 0)
    assert room.leave({1, 2}, 1) == {1}
    assert room.states({1, 2}) == states((1, 5, "null"))
    assert room.everyone() == b""
    assert room.leave({1}, 1) == set()
    assert room.take([ClientState(1, 5, "{}")], 2) == ([], states((1, 5, "null")))  # its sender is told that it is gone
    back = ClientState(1, 6, "{}")
    assert room.take([back], 3) == ([back], b"")


def test_client_that_repeats_its_clock_with_null_is_gone() -> None:
    room = Awareness()
    room.take([ClientState(1, 5, "{}")], 0)
    gone = ClientState(1, 5, "null")
    assert room.take([gone], 1) == ([gone], b"")
    assert not room.is_here(1)


def test_silent_client_is_gone_and_then_forgotten() -> None:
    room = Awareness()
    room.take([ClientState(1, 1, "{}"), ClientState(2, 1, "{}")], 0)
    room.take([ClientState(2, 2, "{}")], OUTDATED)
    assert room.expire(OUTDATED) == (set(), set())
    assert room.expire(OUTDATED + 1) == ({1}, set())
    assert room.everyone() == states((2, 2, "{}"))
    assert room.expire(3 * OUTDATED) == ({2}, {1})
    assert room.expire(5 * OUTDATED) == (set(), {2})
    assert room.characters == len(room) == 0


def test_characters_are_those_of_all_states() -> None:
    room = Awareness()
    room.take([ClientState(1, 1, "[1,2]"), ClientState(2, 1, "{}")], 0)
    room.take([ClientState(1, 2, "[]")], 0)
    assert room.characters == room.size([1, 2, 3]) == 4
    room.leave([1], 1)
    assert room.characters == len("null") + 2


@pytest.mark.parametrize(
    "state",
    [
        "",
        "{",
        "NaN",
        '[1, -Infinity, "a"]',
        "'a'",
        "[" * 8000,
        '"' + "x" * 8192 + '"',
        '{"user":{},"n":1e999}',
        '{"user":{},"n":[-1E400]}',
        "[" * 965 + "]" * 965,
        '{"a":' * 51 + "1" + "}" * 51,
    ],
)
@pytest.mark.parametrize("name", [None, "ann"])
def test_state_that_clients_cannot_read_is_refused(state: str, name: str | None) -> None:
    with pytest.raises(MalformedUpdate):
        checked(ClientState(2, 1, state), name)


@pytest.mark.parametrize("state", ["[" * 50 + "]" * 50, "[" + "[]," * 2000 + "1e308]"])
def test_state_of_few_levels_is_accepted(state: str) -> None:
    assert checked(ClientState(2, 1, state)) == ClientState(2, 1, state)


@pytest.mark.parametrize(
    "data", [b"", b"\1", b"\1\1\1", b"\2\1\1\2{}", states((1, 1, "{}")) + b"\0", states((1, 1, "{}"), (1, 2, "{}"))]
)
def test_message_that_is_no_list_of_states_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        decoded(data)


def test_count_is_known_before_the_states_are_decoded() -> None:
    assert count_of(states((1, 1, "{}"), (2, 1, "{}"))) == 2


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
        ('{"user":{"name":"A\\ud800"}}', "A?"),
    ],
)
def test_names(state: str, name: str | None) -> None:
    room = Awareness()
    room.take([checked(ClientState(1, 1, state))], 0)
    assert room.name_of([9, 1]) == name


@pytest.mark.parametrize(
    ("state", "signed"),
    [
        (
            '{"user":{"name":"root","color":"red"},"cursor":[1,"\\ud800"]}',
            '{"user":{"name":"ann","color":"red"},"cursor":[1,"\\ud800"]}',
        ),
        ('{"user":"root"}', '{"user":{"name":"ann"}}'),
        ('{"cursor":null}', '{"cursor":null}'),
        ("null", "null"),
        ("[]", "[]"),
    ],
)
def test_checked_state_has_the_name_of_the_user_and_keeps_the_rest(state: str, signed: str) -> None:
    assert checked(ClientState(1, 4, state), "ann") == ClientState(1, 4, signed)
