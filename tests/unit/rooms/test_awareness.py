"""The states of clients in a room: the highest clock takes precedence, and invalid states are rejected."""

from __future__ import annotations

import pytest

from realtime.errors import MalformedUpdate
from realtime.rooms import lib0
from realtime.rooms.awareness import (
    MAX_CLOCK,
    OUTDATED_SECONDS,
    Awareness,
    ClientState,
    check_state,
    count_states,
    decode_states,
)


def states(*entries: tuple[int, int, str]) -> bytes:
    return lib0.number(len(entries)) + b"".join(
        lib0.number(client) + lib0.number(clock) + lib0.string(state) for client, clock, state in entries
    )


def test_apply_returns_only_newer_states() -> None:
    room = Awareness()
    one = ClientState(1, 1, '{"a":1}')
    assert room.apply([one], 0) == ([one], b"")
    assert room.apply([one], 1) == ([], b"")
    assert room.apply([ClientState(1, 0, "{}")], 1) == ([], b"")
    newer = ClientState(1, 2, "{}")
    assert room.apply([newer], 1) == ([newer], b"")
    assert room.encode_present() == states((1, 2, "{}"))
    assert len(room) == 1


def test_apply_ignores_clocks_above_the_maximum() -> None:
    room = Awareness()
    last = ClientState(1, MAX_CLOCK, "{}")
    assert room.apply([ClientState(2, MAX_CLOCK + 1, "{}"), last], 0) == ([last], b"")
    assert room.encode_present() == states((1, MAX_CLOCK, "{}"))


def test_removed_client_returns_only_with_a_higher_clock() -> None:
    room = Awareness()
    room.apply([ClientState(1, 5, "{}")], 0)
    assert room.remove({1, 2}, 1) == {1}
    assert room.encode({1, 2}) == states((1, 5, "null"))
    assert room.encode_present() == b""
    assert room.remove({1}, 1) == set()
    assert room.apply([ClientState(1, 5, "{}")], 2) == (
        [],
        states((1, 5, "null")),
    )  # the sender receives its removal
    back = ClientState(1, 6, "{}")
    assert room.apply([back], 3) == ([back], b"")


def test_null_state_at_the_same_clock_removes_the_client() -> None:
    room = Awareness()
    room.apply([ClientState(1, 5, "{}")], 0)
    gone = ClientState(1, 5, "null")
    assert room.apply([gone], 1) == ([gone], b"")
    assert not room.is_present(1)


def test_silent_client_expires_and_is_later_forgotten() -> None:
    room = Awareness()
    room.apply([ClientState(1, 1, "{}"), ClientState(2, 1, "{}")], 0)
    room.apply([ClientState(2, 2, "{}")], OUTDATED_SECONDS)
    assert room.expire(OUTDATED_SECONDS) == (set(), set())
    assert room.expire(OUTDATED_SECONDS + 1) == ({1}, set())
    assert room.encode_present() == states((2, 2, "{}"))
    assert room.expire(3 * OUTDATED_SECONDS) == ({2}, {1})
    assert room.expire(5 * OUTDATED_SECONDS) == (set(), {2})
    assert room.characters == len(room) == 0


def test_characters_counts_the_states_of_all_clients() -> None:
    room = Awareness()
    room.apply([ClientState(1, 1, "[1,2]"), ClientState(2, 1, "{}")], 0)
    room.apply([ClientState(1, 2, "[]")], 0)
    assert room.characters == room.size([1, 2, 3]) == 4
    room.remove([1], 1)
    assert room.characters == len("null") + 2


@pytest.mark.parametrize(
    "state",
    [
        "",
        "{",
        "{}{}",
        "\ufeff{}",
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
def test_state_that_clients_cannot_parse_is_rejected(state: str, name: str | None) -> None:
    with pytest.raises(MalformedUpdate):
        check_state(ClientState(2, 1, state), name)


@pytest.mark.parametrize("state", ["[" * 50 + "]" * 50, "[" + "[]," * 2000 + "1e308]"])
def test_state_within_the_nesting_limit_is_accepted(state: str) -> None:
    assert check_state(ClientState(2, 1, state)) == ClientState(2, 1, state)


@pytest.mark.parametrize(
    "data", [b"", b"\1", b"\1\1\1", b"\2\1\1\2{}", states((1, 1, "{}")) + b"\0", states((1, 1, "{}"), (1, 2, "{}"))]
)
def test_decode_states_of_an_invalid_message_is_rejected(data: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        decode_states(data)


def test_count_states_returns_the_number_of_encoded_states() -> None:
    assert count_states(states((1, 1, "{}"), (2, 1, "{}"))) == 2


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
def test_name_of_returns_the_cleaned_name_or_none(state: str, name: str | None) -> None:
    room = Awareness()
    room.apply([check_state(ClientState(1, 1, state))], 0)
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
def test_check_state_sets_the_user_name_and_keeps_other_fields(state: str, signed: str) -> None:
    assert check_state(ClientState(1, 4, state), "ann") == ClientState(1, 4, signed)
