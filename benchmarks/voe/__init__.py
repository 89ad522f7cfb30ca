"""Violation of expectation: is a model more surprised by the impossible video of a matched pair?

:mod:`.score` measures surprise once and keeps every loss; :mod:`.metrics` and :mod:`.judge` work on
what was kept; :mod:`.report` shows it. Documentation: ``docs/voe_scoring.md``.
"""
