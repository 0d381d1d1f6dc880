"""A recording: every question a session asked of a host and every answer, as text that people read and edit.

::

    record      the host around another one that writes everything down
    replay      the host that answers from a recording, and from nothing else
    tape_host   what these two have in common
    transcript  the file
    events      one question and its answer, field by field
    block       the data of one command, 16 bytes a line
    redact      takes serial numbers and names out
    remembered  the small files of a host, as a recording holds them

How a recording reads in sentences is :mod:`nvmelm.cli.views.transcripts`.
"""
