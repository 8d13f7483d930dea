"""THE EQUATIONS: update rules, presets and schedules; no clock, randomness, environment or logging.

Read `rules/`; `catalog.py` is the way in.
"""
