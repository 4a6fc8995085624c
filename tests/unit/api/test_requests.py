"""Headers of requests."""

from __future__ import annotations

import pytest

from realtime.api.requests import qualities_of


@pytest.mark.parametrize(
    ("header", "qualities"),
    [
        ("gzip", {"gzip": 1}),
        ("gzip, br;q=0.5", {"gzip": 1, "br": 0.5}),
        ("GZIP ;\tQ=0.000", {"gzip": 0}),
        ("text/plain;format=flowed;q=0.1;x=1", {"text/plain": 0.1}),
        ("gzip;q=, br;q=.5, zstd;q=two", {"gzip": 1, "br": 1, "zstd": 1}),
        ("gzip;q=0.5, gzip;q=0", {"gzip": 0.5}),
        ("", {"": 1}),
    ],
)
def test_items_of_accept_headers_have_qualities(header: str, qualities: dict[str, float]) -> None:
    assert qualities_of(header) == qualities
