"""The table of what the traffic tier does."""

from __future__ import annotations

import pathlib

FILE = pathlib.Path(__file__).resolve().parent / "RESULTS.md"
HEAD = """# What the traffic tier does

Made by `python -m benchmarks.traffic MEASURE ...`, which replaces the rows of what it measures; load comes from the
client container, all hosts are containers on one machine and share its cores. `load` is its load average when the
measure ended, with the measure's own part.
"""
