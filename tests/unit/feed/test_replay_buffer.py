"""The replay buffer: it returns all missed events or none, and its size is bounded."""

from __future__ import annotations

import pytest

from realtime.core.frames import Frame
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.event import Event
from realtime.feed.replay_buffer import ReplayBuffer


def event(offset: int, id: int = 1, epoch: str = "e", size: int = 10) -> Event:
    frame = Frame(b"x" * size)
    return Event(id, Cursor(epoch, offset), frame, frame)


def missed(buffer: ReplayBuffer, since: int, top: int, epoch: str = "e") -> list[int] | None:
    found = buffer.between(Cursor(epoch, since), Cursor(epoch, top))
    return None if found is None else [item.cursor.offset for item in found]


def test_replay_buffer_returns_the_latest_event_of_each_note() -> None:
    buffer = ReplayBuffer()
    for offset, id in ((5, 1), (6, 2), (7, 1), (8, 3)):
        buffer.add(event(offset, id))
    assert missed(buffer, 4, 8) == [6, 7, 8]
    assert missed(buffer, 6, 8) == [7, 8]
    assert missed(buffer, 8, 8) == []


def test_cursor_before_the_first_event_returns_none() -> None:
    buffer = ReplayBuffer()
    assert missed(buffer, 3, 4) is None
    buffer.add(event(5))
    assert missed(buffer, 3, 5) is None
    assert missed(buffer, 4, 5) == [5]


@pytest.mark.parametrize(("offset", "epoch"), [(9, "e"), (6, "f"), (5, "e")])
def test_gap_in_the_offsets_drops_earlier_events(offset: int, epoch: str) -> None:
    buffer = ReplayBuffer()
    buffer.add(event(5))
    buffer.add(event(offset, epoch=epoch))
    assert missed(buffer, offset - 2, offset, epoch) is None
    assert missed(buffer, offset - 1, offset, epoch) == [offset]
    assert buffer.between(Cursor("e", 4), Cursor(epoch, offset)) is None or (offset, epoch) == (5, "e")


def test_position_after_the_last_event_returns_none() -> None:
    """The worker restarted at another position, and no event has arrived since."""
    buffer = ReplayBuffer()
    buffer.add(event(5))
    assert missed(buffer, 5, 7) is None


def test_cursor_at_the_position_returns_no_events() -> None:
    """This includes the time before the first event, when the buffer is empty and Redis may be unavailable."""
    assert missed(ReplayBuffer(), 4, 4) == []


def test_replay_buffer_is_limited_in_events_and_bytes() -> None:
    buffer = ReplayBuffer(3, max_bytes=100)
    for offset in range(1, 11):
        buffer.add(event(offset, id=offset))
    assert missed(buffer, 6, 10) is None
    assert missed(buffer, 7, 10) == [8, 9, 10]
    buffer.add(event(11, id=11, size=85))
    assert missed(buffer, 8, 11) is None
    assert missed(buffer, 9, 11) == [10, 11]
    buffer.add(event(12, id=12, size=500))
    assert missed(buffer, 11, 12) is None
    assert missed(buffer, 12, 12) == []


def test_unlogged_event_is_kept_until_it_is_in_the_log() -> None:
    buffer = ReplayBuffer(max_bytes=25)
    buffer.add(event(5, 1))
    for id in (1, 2, 2, 3):
        buffer.add_unlogged(event(5, id))
    assert list(buffer.unlogged) == [2, 3]  # the size limit allows two events
    buffer.add(event(6, 2))
    buffer.add_unlogged(event(6, 4))
    assert list(buffer.unlogged) == [3, 4]
    assert missed(buffer, 4, 6) == [5, 6]
