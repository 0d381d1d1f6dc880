"""What people see of documents: one function a document, each returning lines.

::

    functions    controlling and controlled functions
    glance       a host at a glance
    changes      plans, and what was done
    answers      the answers of changing verbs: one report, or one for each function
    images       states and their images; never a byte of what they hold
    transcripts  a recording in sentences
    verdicts     manifests and verdicts
    watching     what changes on a host, a sentence each

Tables, colours and harmless text are :mod:`nvmelm.cli.frame.render`.
"""
