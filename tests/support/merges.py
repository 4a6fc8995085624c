"""Helpers for tests of merges."""

from __future__ import annotations

import subprocess
from pathlib import Path


def by_patch(folder: Path, before: str, difference: str) -> str:
    """Return a text after the ``patch`` program applied a difference to it."""
    (folder / "before").write_bytes(before.encode())
    (folder / "after").unlink(missing_ok=True)
    subprocess.run(
        ["patch", "--binary", "--fuzz=0", "--silent", "-o", "after", "before"],
        cwd=folder,
        input=difference.encode(),
        check=True,
    )
    return (folder / "after").read_bytes().decode()
