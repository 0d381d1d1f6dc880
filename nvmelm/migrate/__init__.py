"""Step 6 between two hosts: who leads, who follows, and who owns what when something breaks.

::

    source       leads: open, prepare, track, suspend, send, give, take down
    destination  follows: started by the source through ssh, it serves one session and ends
    end          one host's end of a session: what it works with, and what it has written
    agreement    who goes where, and that it fits: before anything is touched
    naming       what the source calls the destination's functions
    standstill   how long the guest stands still, and may
    gate         both manifests judged before anything stops
    request      what a caller wants of a migration
    controllers  the controllers of a session as the device sees them, on either side
    queues       whether a controller has I/O queues, as its state says
    sending      states from the suspended controllers to the link
    loading      states from the link into the targets
    rollback     it failed before the give-away: the source runs again first
    report       what a migration did, as a document
    report_page  the same as one page of HTML
    link/        what travels between the hosts
    rounds/      what changes before the suspend
    callouts/    programs that have a say on the way
    recovery/    sessions that were cut off
    crossing     moves in opposite directions: each holds the PF that the other one waits for

What is written of a session, and who then owns the controllers, is :mod:`nvmelm.ownership`; one controller's state is
:mod:`nvmelm.state`. Asking another host for a manifest only is a verb's business, in :mod:`nvmelm.cli.verbs.compat`.
"""
