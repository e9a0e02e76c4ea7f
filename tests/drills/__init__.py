"""Slow checks that are run by hand, `python -m tests.drills.NAME`: kills, broken files, seams."""
