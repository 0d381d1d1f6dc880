"""Programs that are run at the named points of a migration.

::

    points    the points, and what a callout is told there; a new point is a row here
    programs  which programs those are, and how each is run
    trusted   which may be run at all: none that others could have put there
"""
