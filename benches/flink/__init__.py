"""Runs Flink beside Mainstem for the benchmarks; see `cluster.py`."""
