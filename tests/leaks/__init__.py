"""Leaks by counters and by the slope of memory: `python -m tests.leaks`."""
