"""What travels between two hosts, over two file descriptors.

::

    frames    frames, bounded in every field
    messages  one message a frame, JSON: the protocol of ``docs/protocol.md``
    streams   states, as data frames
    remote    the far side, started there by ssh or by what replaces it
    buffers   memory for the frames of a link

"""
