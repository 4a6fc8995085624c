"""The encoding of text files: written text is read, and other bytes are read without a loss."""

from __future__ import annotations

import codecs
from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from realtime.errors import FileSkipped
from realtime.transfer.text_encoding import decode, from_windows_1252

TEXT = "# Größe\n\nA “quoted” word – and 1 €\n"
RUSSIAN = "# Заметка\nэто текст без латиницы\n"
STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)


def test_utf_8_is_decoded_unchanged() -> None:
    assert decode(f"{TEXT}🦜\ufeff".encode()) == (f"{TEXT}🦜\ufeff", [])


@pytest.mark.parametrize(
    ("mark", "codec", "named"),
    [
        (codecs.BOM_UTF8, "utf-8", "UTF-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16 LE"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16 BE"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32 LE"),
        (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32 BE"),
    ],
)
@pytest.mark.parametrize("text", [TEXT, RUSSIAN, "", "🦜", "日本語のメモ"])
def test_byte_order_mark_determines_the_encoding(mark: bytes, codec: str, named: str, text: str) -> None:
    read, changes = decode(mark + text.encode(codec))
    assert read == text
    assert len(changes) == 1
    assert named in changes[0]


@pytest.mark.parametrize(
    ("codec", "named"),
    [("utf-16-le", "UTF-16 LE"), ("utf-16-be", "UTF-16 BE"), ("utf-32-le", "UTF-32 LE"), ("utf-32-be", "UTF-32 BE")],
)
@pytest.mark.parametrize("text", [TEXT, RUSSIAN])
def test_utf_16_and_utf_32_are_detected_without_a_mark(codec: str, named: str, text: str) -> None:
    assert decode(text.encode(codec)) == (text, [f"encoding: was read as {named}"])


@pytest.mark.parametrize("text", [TEXT, "naïve café", "Â° and Ã©, as well as ÄÖÜ äöü"])
def test_other_bytes_are_read_as_windows_1252(text: str) -> None:
    assert decode(text.encode("cp1252")) == (text, ["encoding: is not UTF-8 and was read as Windows-1252"])


def test_few_invalid_bytes_in_utf_8_are_read_as_windows_1252() -> None:
    read, changes = decode(f"{TEXT}caf".encode() + b"\xe9 \x93")
    assert read == f"{TEXT}café “"
    assert changes == ["encoding: 2 bytes were not UTF-8 and were read as Windows-1252"]


def test_bytes_undefined_in_windows_1252_are_kept() -> None:
    assert decode(b"a\x81\x9d") == ("a\x81\x9d", ["encoding: is not UTF-8 and was read as Windows-1252"])


@pytest.mark.parametrize("data", [b"a\0b", b"ab\0c", b"text\0", b"\0text \0text"])
def test_nul_is_replaced_and_reported(data: bytes) -> None:
    read, changes = decode(data)
    assert read == data.decode().replace("\0", "\ufffd")
    assert changes[-1].startswith(f"text: {data.count(0)} NUL character")


@pytest.mark.parametrize("tail", [b"\x00", b"\x00\xd8", b"\x00\xdc\x41\x00"])
def test_invalid_utf_16_is_replaced_and_reported(tail: bytes) -> None:
    read, changes = decode(codecs.BOM_UTF16_LE + "text".encode("utf-16-le") + tail)
    assert read.startswith("text\ufffd")
    assert len(changes) == 2
    read.encode()


def test_utf_16_that_begins_like_a_utf_32_mark_is_decoded() -> None:
    assert decode("\ufeff\0text.".encode("utf-16-le"))[0] == "\ufffdtext."


def test_surrogates_in_utf_8_are_read_as_windows_1252() -> None:
    assert decode(b"a\xed\xa0\x80")[0] == "aí\xa0€"


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", bytes(range(256)), b"\xff\0\xfe" * 50, b"\xff\x01" * 9]
)
def test_binary_data_is_skipped(data: bytes) -> None:
    with pytest.raises(FileSkipped):
        decode(data)


@given(st.binary(max_size=300))
def test_random_bytes_become_storable_text_or_are_skipped(data: bytes) -> None:
    with suppress(FileSkipped):
        text, _ = decode(data)
        text.encode()
        assert "\0" not in text


@given(STORABLE)
def test_any_valid_utf_8_is_decoded_unchanged(text: str) -> None:
    assume(not text.startswith("\ufeff"))
    assert decode(text.encode()) == (text, [])


@given(st.binary(max_size=300).map(lambda data: data.replace(b"\0", b"")))
def test_windows_1252_decoding_maps_each_byte_uniquely(data: bytes) -> None:
    assert len(from_windows_1252(data)) == len(data)
    assert len({from_windows_1252(bytes([byte])) for byte in range(256)}) == 256
