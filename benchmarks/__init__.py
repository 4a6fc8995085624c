"""Benchmarks: the comparison with other servers (``docs/explanation/performance.md``), and measurements of parts."""
