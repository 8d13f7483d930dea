"""Gradledger's service: a gradient is decoded once, logged before it is believed, applied, and answered."""

__version__ = "0.1.0"
