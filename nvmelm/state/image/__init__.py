"""The state image: one controller's saved state in a file or a pipe, and the proof that it may be used.

::

    format  the header, the parts and the seal; writing
    checks  what an image must be, and the reasons of refusals
    reader  reading: nobody uses a byte that is not proven
    spool   an image in a pipe, copied first
    stream  an image that arrives piece by piece
    view    what an image says of itself
    digest  the digests that prove it
"""
