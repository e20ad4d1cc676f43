"""The configuration, `casemate.toml`: what the broker listens on, and how much it may be asked.

Every option has a safe zero value. An unknown key is an error, never ignored. What weakens the
broker is spelled `insecure_*` and needs a written reason. Variables `CASEMATE_…` of the
environment count over the file and are checked like it.

Example:
    ```python
    from casemate import Broker
    from casemate.config import Configuration, Limits, Listener, Log, Store

    configuration = Configuration(
        listeners=(Listener(kind="tcp", host="127.0.0.1", port=0),),
        limits=Limits(connections_max=100),
        log=Log(level="info"),
        store=Store(durability="memory"),
    )
    with Broker(configuration=configuration) as broker:
        print(broker.addresses[0].kind)  # tcp
    ```
"""

from casemate.config.configuration import (
    FILE_NAME,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    Configuration,
    default_text,
)
from casemate.config.limits import Limits
from casemate.config.listener import SOCKETS_PATH_BYTES_MAX, Listener
from casemate.config.log import Log
from casemate.config.reading import Reading, Setting, Source, load, parse, read
from casemate.config.schema import schema_text
from casemate.config.section import REASON_CHARACTERS_MAX, REASON_CHARACTERS_MIN
from casemate.config.store import Store
from casemate.config.weakening import weakenings
from casemate.config.web import WS_PATH

__all__ = [
    "FILE_NAME",
    "REASON_CHARACTERS_MAX",
    "REASON_CHARACTERS_MIN",
    "SERVER_CERTIFICATE",
    "SERVER_KEY",
    "SOCKETS_PATH_BYTES_MAX",
    "WS_PATH",
    "Configuration",
    "Limits",
    "Listener",
    "Log",
    "Reading",
    "Setting",
    "Source",
    "Store",
    "default_text",
    "load",
    "parse",
    "read",
    "schema_text",
    "weakenings",
]
