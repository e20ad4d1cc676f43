"""The options by which `pub`, `sub` and `rr` reach a broker, named as mosquitto's programs do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

PORT_MAX = 65_535

As = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Be this local identity; host, port and CA follow."),
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", envvar="CASEMATE_HOME", metavar="DIR", help="Home of --as (default: this folder)."
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "-L", "--url", metavar="URL", help="mqtts://, mqtt://…/TOPIC, wss://, ws:// or unix:/."
    ),
]
Host = Annotated[
    str | None, typer.Option("-h", "--host", metavar="HOST", help="Broker (default: localhost).")
]
Port = Annotated[
    int | None,
    typer.Option(
        "-p", "--port", min=1, max=PORT_MAX, metavar="PORT", help="Port (default: 8883 with TLS)."
    ),
]
UnixSocket = Annotated[
    Path | None, typer.Option("--unix", metavar="FILE", help="A unix socket, for host and port.")
]
BindAddress = Annotated[
    str | None, typer.Option("-A", metavar="ADDRESS", help="Own address to connect from.")
]
Proxy = Annotated[
    str | None,
    typer.Option(
        "--proxy",
        metavar="URL",
        help="Go through it: http:// or socks5h://[user:password@]host:port.",
    ),
]
ClientId = Annotated[str | None, typer.Option("-i", "--id", metavar="ID", help="Client id.")]
ClientIdPrefix = Annotated[
    str | None,
    typer.Option("-I", "--id-prefix", metavar="TEXT", help="Client id: this and a process id."),
]
Username = Annotated[
    str | None, typer.Option("-u", "--username", metavar="NAME", help="User name.")
]
Password = Annotated[
    str | None,
    typer.Option(
        "-P", "--pw", metavar="TEXT", help="Password; others on this machine may see it here."
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="File that holds the password."),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--cafile", metavar="FILE", help="PEM of the CA to trust (default: the system's)."
    ),
]
CaPath = Annotated[
    Path | None, typer.Option("--capath", metavar="DIR", help="CAs to trust, named by openssl.")
]
SystemCas = Annotated[
    bool, typer.Option("--tls-use-os-certs", help="Trust the system's CAs besides --cafile.")
]
CertFile = Annotated[
    Path | None, typer.Option("--cert", metavar="FILE", help="PEM of the client's certificate.")
]
KeyFile = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="PEM of its private key.")
]
Alpn = Annotated[
    str | None, typer.Option("--tls-alpn", metavar="NAME", help="Protocol named within TLS.")
]
Ciphers = Annotated[
    str | None,
    typer.Option("--ciphers", metavar="LIST", help="Fewer ciphers of TLS 1.2, never weaker ones."),
]
TlsVersion = Annotated[
    Literal["tlsv1.2", "tlsv1.3"] | None,
    typer.Option("--tls-version", help="This version of TLS only (default: 1.2 or 1.3)."),
]
Plaintext = Annotated[
    bool,
    typer.Option(
        "--insecure-plaintext", help="No TLS: everybody on the way reads and changes everything."
    ),
]
VersionOption = Annotated[
    str,
    typer.Option(
        "-V", "--protocol-version", metavar="VERSION", help="5, 311 or 31, also as mqttv5 …"
    ),
]
KeepAlive = Annotated[
    int,
    typer.Option(
        "-k", "--keepalive", min=0, max=65_535, metavar="SECONDS", help="Keep alive; 0: none."
    ),
]
KeepSession = Annotated[
    bool, typer.Option("-c", "--disable-clean-session", help="Keep the session; needs -i.")
]
SessionExpiry = Annotated[
    str | None,
    typer.Option(
        "-x",
        "--session-expiry-interval",
        metavar="SECONDS",
        help="How long it is kept (default: a day with -c); -1 for ever.",
    ),
]
PropertyOption = Annotated[
    list[str] | None,
    typer.Option(
        "-D",
        "--property",
        metavar="PACKET NAME VALUE",
        help="Property of connect, publish, subscribe or will; user-property has two values.",
    ),
]
InFlight = Annotated[
    int,
    typer.Option(
        "-M", min=1, max=65_535, metavar="COUNT", help="Messages of QoS 1 and 2 on their way."
    ),
]
NoDelay = Annotated[bool, typer.Option("--nodelay", help="Send small packets at once; always on.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print no error; the exit code remains.")]
Debug = Annotated[bool, typer.Option("-d", "--debug", help="Say what happens, on stderr.")]
WillTopic = Annotated[
    str | None, typer.Option("--will-topic", metavar="TOPIC", help="Topic of the will.")
]
WillPayload = Annotated[
    str | None, typer.Option("--will-payload", metavar="TEXT", help="Payload of the will.")
]
WillQos = Annotated[
    int, typer.Option("--will-qos", min=0, max=2, metavar="QOS", help="QoS of the will.")
]
WillRetain = Annotated[bool, typer.Option("--will-retain", help="Retain the will.")]
Qos = Annotated[int, typer.Option("-q", "--qos", min=0, max=2, metavar="QOS", help="QoS.")]
