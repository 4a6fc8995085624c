"""Tests of the page in a real browser: live updates, no data loss, safety and accessibility."""
