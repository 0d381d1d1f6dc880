"""Manifests and verdicts in the words of the management layers that ask.

::

    token       one opaque string, tested by the other side
    steps       compared step by step: api, attributes, type, version, attributes of the type
    parameters  a model with parameters, as libraries of hypervisors take it
    tree        one value a file, as sysfs would show it
"""
