"""`casemate run`: serves an existing home."""

from __future__ import annotations

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption, LogFormatOption, LogLevelOption, Verbose


def run(
    home: HomeOption = None,
    verbose: Verbose = False,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve an existing home until SIGINT or SIGTERM.

    Changes of accounts and policy come into force within a second; a wrong one is reported, and
    the last good state stays.
    """
    from casemate.broker import Broker
    from casemate.cli import journal, systemd
    from casemate.cli.posture import print_posture
    from casemate.cli.serve import serve

    opened = console.open_home(home)
    asked = journal.settings(opened.configuration().log, log_format, log_level, verbose=verbose)
    with journal.begun(asked) as events:
        broker = Broker(opened.path, raw_events=events.take, inherited=systemd.inherited)

        def ready() -> None:
            journal.say_listening(broker, events)
            print_posture(broker, as_json=as_json)

        serve(broker, ready)
