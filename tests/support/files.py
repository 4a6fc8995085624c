"""Files to import, and texts that are difficult to export."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

UNUSUAL_TEXTS = [
    *("yes", "null", "NULL", "~~~", "true", "2024-01-01", "0x1F", "1_000", "1e3", ".inf", "012", "<<<", "===", "..."),
    *("- x", "#x #", "{a}", "[a]", "a: b", "a #b", "'a'", '"a"', "*a ", "&a ", "!!str a", "%YAML", "|  ", "> a", "@a@"),
    *("---", "--- ", "a\n---\nb", "---\n---\n", "\r\n---\r\n", "a\rb", "\t\ta", "   ", " a ", "a\\nb", "a\n\n\n"),
    *("\ufeffab", "\u2028\u2029\x85", "\x01\x7f\x9f", "\ufffe\uffffa", "🦜🦜🦜", "e\u0301\u200d", "\U0010ffff--"),
]
"""Titles, tags and texts that a Markdown file with front matter must escape."""


def zipped(files: Mapping[str, str | bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive of files by name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression, compresslevel=1) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()
