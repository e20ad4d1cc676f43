"""The way into the program: before it is loaded and after it is done, Ctrl-C ends it silently."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line of this process and ends it with its exit code."""
    usual = signal.getsignal(signal.SIGINT)
    # Where nobody wants to be interrupted, as behind `&` in a script, that remains so.
    is_wanted = usual is signal.default_int_handler
    if is_wanted:
        # Python's own handler would print a traceback of whatever was being imported.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from casemate.cli.app import execute
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
    sys.exit(code)


if __name__ == "__main__":
    main()
