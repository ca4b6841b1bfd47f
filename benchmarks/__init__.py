"""Measurements of what the project promises in numbers. Run one by hand: ``python -m benchmarks.NAME``."""
