"""The way into the program: before it is loaded and after it is done, Ctrl-C ends it silently."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

_ALLOCATIONS = 50_000
"""After so many new objects Python looks for garbage; its own 700 suit programs that run longer."""


def main() -> NoReturn:
    """Runs the command line of this process and ends it with its exit code."""
    usual = signal.getsignal(signal.SIGINT)
    # Where nobody wants to be interrupted, as behind `&` in a script, that remains so.
    is_wanted = usual is signal.default_int_handler
    if is_wanted:
        # Python's own handler would print a traceback of whatever was being imported.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What a start makes stays: to look for garbage in it costs a tenth of its time.
    gc.set_threshold(_ALLOCATIONS)
    from casemate.cli.app import execute, is_brief
    from casemate.cli.console import INTERRUPTED

    code = INTERRUPTED
    try:
        if is_wanted:
            signal.signal(signal.SIGINT, usual)
        code = execute()
    except KeyboardInterrupt:
        # It came between two lines of ours.
        code = INTERRUPTED
    finally:
        if is_wanted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    if is_brief(sys.argv[1:]) and _is_written():
        # The system takes the memory back at once; Python would do so piece by piece.
        os._exit(code)
    sys.exit(code)


def _is_written() -> bool:
    """Says whether everything that was printed has left this process."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
