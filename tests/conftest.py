"""Lets Ctrl-C reach what the tests start, however they were started themselves."""

from __future__ import annotations

import signal

# Behind `&` in a script a process ignores SIGINT, and so does every process that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
