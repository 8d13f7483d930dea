"""Gradledger beside the physical limits of the machine it runs on: `python -m benchmarks`."""
