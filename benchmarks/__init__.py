"""Measurements: the comparison with others (``docs/performance.md``), and of parts."""
