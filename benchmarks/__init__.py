"""Benchmarks of epicsx beside pyepics and beside C straight on libca: `python -m benchmarks`."""
