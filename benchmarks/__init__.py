"""Measured against others: one file a question, each run as `python -m benchmarks.NAME`."""
