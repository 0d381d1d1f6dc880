"""The state image: one controller's saved state in a file or a pipe, and the proof that it may be used.

::

    format  the header, the parts and the seal; writing
    reader  reading: nobody uses a byte that is not proven
    stream  an image that arrives piece by piece
    view    what an image says of itself
    digest  the digests that prove it
"""
