"""Addresses on the command line: loopback addresses need no proxy."""

from __future__ import annotations

import pytest

from realtime.cli.addresses import is_this_machine


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost", "http://LOCALHOST:8000/path", "ws://notes.localhost./ws", "https://localhost.:1"),
        *(
            "http://127.0.0.1:8000",
            "http://127.255.1.2",
            "http://127.1",
            "http://0x7f000001:1",
            "ws://user:word@127.0.0.1",
        ),
        *("http://[::1]:8000", "http://[::ffff:127.0.0.1]", "http://0.0.0.0:8000", "http://[::]"),
    ],
)
def test_loopback_url_is_this_machine(url: str) -> None:
    assert is_this_machine(url)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://notes.example",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://10.0.0.1",
            "http://128.1",
        ),
        *(
            "http://[2001:db8::1]",
            "http://[::1",
            "http://",
            "",
            "http://notes.example/127.0.0.1",
            "http://127.0.0.1@notes.example",
        ),
    ],
)
def test_remote_or_invalid_url_is_not_this_machine(url: str) -> None:
    assert not is_this_machine(url)
