"""What every test stands on."""

from __future__ import annotations

import signal

# A shell that starts something in the background lets it ignore Ctrl-C, and so would everything the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
