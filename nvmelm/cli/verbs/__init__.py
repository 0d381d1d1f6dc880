"""A module for each word that is typed after ``nvmelm``: its arguments, one call of an operation, its answer.

The table of words is ``SECTIONS`` in :mod:`nvmelm.cli.frame.app`; it says which module has a word. Words with much
below them are folders (``compat/``, ``emulate/``, ``bug_report/``), whose ``verbs`` module has the group. Some modules
serve others: ``prepare`` is both ``source`` and ``destination``, ``recovery`` is ``recover``.

How answers read is :mod:`nvmelm.cli.views`. Nothing here decides anything about a device: that is an operation's, below
:mod:`nvmelm.cli`.
"""
