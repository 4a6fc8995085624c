"""lib0's encoding: encoded values are decoded, and invalid data is rejected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import MalformedUpdate
from realtime.rooms import lib0
from realtime.rooms.lib0 import Reader

NUMBERS = st.integers(0, 2**53 - 1)


@given(NUMBERS, st.binary(max_size=300), st.text(max_size=300))
def test_encoded_values_are_decoded_unchanged(value: int, data: bytes, text: str) -> None:
    reader = Reader(lib0.number(value) + lib0.array(data) + lib0.string(text) + b"\x07")
    assert reader.number(2**53 - 1) == value
    assert reader.array() == data
    assert reader.string() == text
    assert reader.byte() == 7
    reader.finish()


@given(NUMBERS)
def test_number_above_its_limit_is_rejected(value: int) -> None:
    assert Reader(lib0.number(value)).number(value) == value
    with pytest.raises(MalformedUpdate, match="more than the limit"):
        Reader(lib0.number(value + 1)).number(value)


@given(st.binary(max_size=40))
def test_random_bytes_are_decoded_or_rejected(data: bytes) -> None:
    for read in (Reader.byte, Reader.count, Reader.array, Reader.string, Reader.finish):
        try:
            read(Reader(data))
        except MalformedUpdate:
            continue


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 8, b"\xff" * 1000])
def test_unterminated_number_is_rejected(data: bytes) -> None:
    with pytest.raises(MalformedUpdate, match="ends within a number"):
        Reader(data).number(2**53)


def test_count_or_length_beyond_the_data_is_rejected() -> None:
    assert Reader(b"\x02ab").count() == 2
    for read in (Reader.count, Reader.array, Reader.string):
        with pytest.raises(MalformedUpdate):
            read(Reader(b"\x05abc"))
    with pytest.raises(MalformedUpdate, match="UTF-8"):
        Reader(b"\x01\xff").string()
    with pytest.raises(MalformedUpdate, match="too early"):
        Reader(b"").byte()
    with pytest.raises(MalformedUpdate, match="after its end"):
        Reader(b"a").finish()
