"""This process and its children: signals, threads, waits, and programs that are started.

::

    interrupts  signals that ask to stop, held back where stopping would leave two hosts in doubt
    parallel    work that waits for the kernel, done from several threads at once
    waiting     wait for a condition with a deadline; there are no fixed sleeps
    child       the one way to start a program
    executable  why a file is no program
    program     run a program with a document on its standard input
    descriptor  a descriptor that several threads use

Which programs a migration may run is :mod:`nvmelm.migrate.callouts`; other processes on the host, and what they hold
open, are asked through :mod:`nvmelm.host`.
"""
