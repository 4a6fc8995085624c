"""Accessibility checks of the page with axe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Page

AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
"""The axe script. Run it in the page before :func:`serious`."""


async def serious(page: Page, **options: Any) -> list[tuple[str, list[str]]]:
    """Return the serious and critical violations: the rule, and the elements."""
    found = await page.evaluate("options => axe.run(options)", {"preload": False, **options})
    assert found["passes"]
    violations = [violation for violation in found["violations"] if violation["impact"] in ("serious", "critical")]
    return [(violation["id"], [node["html"][:150] for node in violation["nodes"]]) for violation in violations]
