"""Build hook: puts the web page's sources into the package, so that a wheel and an editable install both serve it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageHook(BuildHookInterface[Any]):
    """Copies ``frontend/`` to ``realtime/static/``."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        shutil.copytree(root / "frontend", root / "realtime" / "static", dirs_exist_ok=True)
