"""Can the state of one controlled function be set in another? Answered from outside, before anything stops.

A :class:`~nvmelm.compat.manifest.Manifest` describes a function by facts, :func:`~nvmelm.compat.verdict.judge` compares
two of them by the one table in :mod:`nvmelm.compat.facts`, and a site's policy may pin, relax or add rules. Nothing
here starts a process or changes a device; :mod:`nvmelm.compat.describe` alone asks one.
"""
