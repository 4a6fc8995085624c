"""The messages of y-websocket: valid messages of clients are parsed, and all others are rejected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import MalformedUpdate
from realtime.rooms import lib0, protocol
from realtime.rooms.protocol import SyncKind, SyncMessage, decode


@given(st.binary(max_size=300))
def test_encoded_messages_are_decoded_unchanged(data: bytes) -> None:
    assert decode(protocol.state(data)) == SyncMessage(SyncKind.STATE, data)
    assert decode(protocol.missing(data)) == SyncMessage(SyncKind.MISSING, data)
    assert decode(protocol.update(data)) == SyncMessage(SyncKind.UPDATE, data)
    assert decode(protocol.awareness(data)) == SyncMessage(SyncKind.AWARENESS, data)
    assert decode(b"\3") == SyncMessage(SyncKind.QUERY_AWARENESS, b"")


@given(st.binary(max_size=60))
def test_random_bytes_are_decoded_or_rejected(data: bytes) -> None:
    try:
        decode(data)
    except MalformedUpdate:
        return


@pytest.mark.parametrize(
    "data",
    [b"", b"\4", b"\x65", b"\0", b"\0\3\0", b"\0\0", b"\1", b"\1\2a", b"\0\1\1ab", b"\3\0", protocol.denied("no")],
)
def test_decode_of_an_invalid_message_is_rejected(data: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        decode(data)


@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize("kind", range(9))
def test_message_of_a_hocuspocus_provider_is_rejected(length: int, kind: int) -> None:
    """Its messages begin with the name of the document and their kind. These are the first ones."""
    for body in (b"", lib0.array(b"\0"), b"\0" + lib0.array(b"\0"), b"\0" + lib0.string("token") + lib0.string("4.8")):
        with pytest.raises(MalformedUpdate):
            decode(lib0.string("n" * length) + bytes((kind,)) + body)


def test_denied_message_is_encoded_as_auth_js_expects() -> None:
    assert protocol.denied("read only") == b"\2\0" + lib0.string("read only")
