"""Lets Ctrl-C reach what the tests start, however they were started, and gives examples time."""

from __future__ import annotations

import signal

from hypothesis import settings

# A busy machine is no fault of what is tested: no test is about the time of one example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Behind `&` in a script a process ignores SIGINT, and so does every process that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
