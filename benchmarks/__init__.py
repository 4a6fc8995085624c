"""Measurements: the comparison with others (``docs/explanation/performance.md``), and of parts."""
