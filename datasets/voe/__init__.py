"""Violation-of-expectation sets: readers of the published layouts and of our own.

:func:`.registry.open_voe` reads any of them into one record, :class:`.record.VoeSet`: videos with
their labels, the groups they belong to, the pairs to compare, and what was refused and why.
"""
