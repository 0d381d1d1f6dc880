"""What travels between two hosts, over two file descriptors.

::

    layout    the preamble and the frames, byte by byte
    frames    frames to and from the other side
    messages  one message a frame, JSON: the protocol of ``docs/protocol.md``
    streams   states, as data frames
    remote    the far side, started there by ssh or by what replaces it
    buffers   memory for the frames of a link

"""
