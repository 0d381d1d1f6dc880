"""The frame around every verb: it opens the host, prints the answer, and turns errors into exit codes.

::

    app        the tree of verbs; a verb's module is imported when the verb is invoked, and not before
    run        what every verb is run by
    parser     commands and groups: how help reads
    completion  the shell that a completion is meant for
    options    arguments and options that several verbs share
    functions  how a controlled function is named: PF CNTLID, PF/CNTLID, or an address
    callouts   those of verbs that migrate
    policy     a site's rules of compatibility, as a verb takes them
    domain     those of verbs that take a domain of libvirt
    report     how errors are shown
    render     tables, sentences, colours, JSON; text from devices made harmless
    waits      what is said of a wait that lasts, for programs
    progress   the bar on a terminal
    logs       entries of the journal, under systemd
    documents  documents of the command line alone
    codes      exit codes, errnos and outcomes in words
    aside      what is said beside the answer while a verb works, written by a thread that nobody waits for

What a verb does is not here: see :mod:`nvmelm.cli.verbs`.
"""
