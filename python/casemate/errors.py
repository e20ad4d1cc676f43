"""Every error a caller of casemate can meet, one class for each decision a caller can take.

```
CasemateError
├── ConfigurationError      casemate.toml is wrong: mend .file at .line
├── HomeError               the home cannot be used as it is
│   ├── HomeMissing         there is no home here: run init, or name another folder
│   ├── HomeExists          there is a home already: keep it, or choose another folder
│   ├── FileExposed         others may read or change a private file: narrow its mode
│   └── IdentityMissing     no certificate of that name is kept here: add the device
├── IdentityError           the account store cannot answer: refuse whoever asks
│   ├── UnknownAccount      no account of that name: check the spelling
│   ├── AccountExists       the name is taken: choose another
│   ├── NameRefused         the name can never be an account's: choose another
│   ├── WeakPassword        the password is too easy: choose another
│   └── CredentialsRefused  name and password prove nothing: refuse, and say no more
├── PkiError                a certificate cannot be issued or read
│   ├── AuthorityDamaged    a file of the authority is missing or wrong: restore it
│   ├── AuthorityLocked     the key needs its passphrase: ask for it
│   ├── AuthorityExpired    the authority's time is over: make a new one
│   ├── ClockWrong          this machine's clock is before the authority: set the clock
│   └── LifetimeRefused     the validity asked for is out of range: ask for another
├── PolicyError             policy.toml is wrong: mend .file at .line
│   └── UnknownRole         a role is used that no policy defines: define it or rename it
├── StoreError              what must be kept cannot be: mend the folder, or give the key
│   └── StoreInUse          another broker has the store: stop it, or use another folder
├── BrokerError             the broker cannot run
│   ├── PortInUse           another program listens there: choose another port
│   ├── BrokerStopped       the broker is not running: start it first
│   ├── ConnectRefused      a hook does not want a client: raise it in on_connect
│   └── EngineFailed        the engine ended by itself: read the cause, restart
└── ClientError             the client cannot go on
    ├── Refused             the broker said no, with an MQTT reason code: do not just retry
    ├── Unreachable         nothing answers there: check host and port
    ├── Untrusted           TLS failed or was left out: mend the trust, never lower it
    ├── ConnectionLost      the connection ended: connect again
    ├── NotConnected        nothing is connected yet: connect first
    ├── DeadlinePassed      no answer came in time: retry, or look at the network
    └── ProtocolViolation   the broker broke the protocol: do not trust it
```

Each class has a stable `code`, never reused for another meaning. A message says what is wrong,
`cause` what lies behind it, `hint` what to do. No message ever holds a secret.

Example:
    ```python
    from casemate import Broker
    from casemate.errors import CasemateError, Refused

    try:
        Broker("nowhere").start()
    except CasemateError as error:
        print(error.code, "|", error.hint)  # home-missing | run "casemate init --home …

    async with Broker() as broker, broker.client("t7", role="sensor") as sensor:
        try:
            await sensor.publish("devices/t8/temp", "21.5", qos=1)
        except Refused as refusal:
            print(hex(refusal.reason_code), "|", refusal.hint)  # 0x87 | the policy …
    ```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class CasemateError(Exception):
    """Says that casemate could not do what it was asked, why, and what helps.

    Args:
        message: One sentence without a full stop, fit for `error: …`; holds no secret.
        cause: What lies behind it, such as the system's own words; may be empty.
        hint: What the reader can do next; may be empty.
    """

    code: ClassVar[str] = "casemate"

    def __init__(self, message: str, *, cause: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        """Gives message and cause in one line; the hint stays apart."""
        return f"{self.message}: {self.cause}" if self.cause else self.message


class _FileError(CasemateError):
    """Places an error in a text file, so that an editor can jump to it.

    Args:
        message: What is wrong, without the place.
        file: The file at fault.
        line: Line in that file, from 1; None when the whole file is meant.
        cause: What lies behind it; may be empty.
        hint: What the reader can do next; may be empty.
    """

    def __init__(
        self,
        message: str,
        *,
        file: Path | None = None,
        line: int | None = None,
        cause: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, cause=cause, hint=hint)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        """Puts `file:line:` before the message when they are known."""
        text = super().__str__()
        if self.file is None:
            return text
        place = str(self.file) if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {text}"


class ConfigurationError(_FileError):
    """Says that casemate.toml is missing, unreadable or wrong; nothing was started."""

    code = "configuration"


class HomeError(CasemateError):
    """Says that the home cannot be used as it is."""

    code = "home"


class HomeMissing(HomeError):
    """Says that the folder is not a home of casemate."""

    code = "home-missing"


class HomeExists(HomeError):
    """Says that a home would be overwritten; nothing was touched."""

    code = "home-exists"


class FileExposed(HomeError):
    """Says that other accounts of the machine may read or change a private file."""

    code = "file-exposed"


class IdentityMissing(HomeError):
    """Says that no certificate and key of that name are kept in the home."""

    code = "identity-missing"


class IdentityError(CasemateError):
    """Says that the account store cannot answer; whoever asked must be refused."""

    code = "identity"


class UnknownAccount(IdentityError):
    """Says that there is no account of that name."""

    code = "unknown-account"


class AccountExists(IdentityError):
    """Says that the name, or one that differs only in case, is taken."""

    code = "account-exists"


class NameRefused(IdentityError):
    """Says that the text can never be the name of an account or a role."""

    code = "name-refused"


class WeakPassword(IdentityError):
    """Says that the password is too easy to guess; the password is not in the message."""

    code = "weak-password"


class CredentialsRefused(IdentityError):
    """Says that the credentials prove nobody, the same way for every possible cause."""

    code = "credentials-refused"


class PkiError(CasemateError):
    """Says that a certificate cannot be issued or read."""

    code = "pki"


class AuthorityDamaged(PkiError):
    """Says that a file of the authority is missing, unreadable or does not fit the others."""

    code = "authority-damaged"


class AuthorityLocked(PkiError):
    """Says that the authority's key is encrypted and the passphrase is missing or wrong."""

    code = "authority-locked"


class AuthorityExpired(PkiError):
    """Says that the authority may no longer sign because its own time is over."""

    code = "authority-expired"


class ClockWrong(PkiError):
    """Says that this machine's clock is before the day the authority was made."""

    code = "clock-wrong"


class LifetimeRefused(PkiError):
    """Says that the validity asked for is out of range or outlives the authority."""

    code = "lifetime-refused"


class PolicyError(_FileError):
    """Says that policy.toml is missing, unreadable or wrong; nothing is allowed by it."""

    code = "policy"


class UnknownRole(PolicyError):
    """Says that a role is used which no policy defines."""

    code = "unknown-role"


class StoreError(CasemateError):
    """Says that the store cannot be read or written; nothing of what was kept is changed."""

    code = "store"


class StoreInUse(StoreError):
    """Says that another broker has the store, and that nothing was done to it."""

    code = "store-in-use"


class BrokerError(CasemateError):
    """Says that the broker cannot run or has ended."""

    code = "broker"


class PortInUse(BrokerError):
    """Says that another program listens on the address already."""

    code = "port-in-use"


class BrokerStopped(BrokerError):
    """Says that the broker does not run, or not in this process."""

    code = "broker-stopped"


class ConnectRefused(BrokerError):
    """Says that a program does not want a client in its broker; hooks raise it in `on_connect`.

    Args:
        message: Why, in one line, for events and the log; the client hears the reason code alone.
        reason_code: What an MQTT 5.0 client sees, one of `REASON_CODES`; 0x87, Not authorized, is
            the default because it promises nothing.

    Raises:
        ValueError: The reason code is no refusal that a broker may give to a CONNECT.
    """

    code = "connect-refused"

    REASON_CODES: ClassVar[frozenset[int]] = frozenset(
        {0x80, 0x83, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x97, 0x9F}
    )

    def __init__(self, message: str, *, reason_code: int = 0x87) -> None:
        super().__init__(message)
        if reason_code not in self.REASON_CODES:
            known = ", ".join(f"0x{one:02X}" for one in sorted(self.REASON_CODES))
            raise ValueError(f"0x{reason_code:02X} refuses no CONNECT: use one of {known}")
        self.reason_code = reason_code


class EngineFailed(BrokerError):
    """Says that the engine ended without being asked to."""

    code = "engine-failed"


class ClientError(CasemateError):
    """Says that the client cannot go on."""

    code = "client"


class Refused(ClientError):
    """Says that the broker answered with an MQTT reason code of refusal.

    Args:
        message: What was refused.
        reason_code: MQTT 5.0 reason code, 0x80–0xFF, or the CONNACK return code of
            MQTT 3.1.1, 1–5.
        cause: The broker's reason string, if it gave one.
        hint: What the reader can do next.
    """

    code = "refused"

    def __init__(self, message: str, *, reason_code: int, cause: str = "", hint: str = "") -> None:
        super().__init__(message, cause=cause, hint=hint)
        self.reason_code = reason_code


class Unreachable(ClientError):
    """Says that the broker's address is unknown, or that nothing listens there."""

    code = "unreachable"


class Untrusted(ClientError):
    """Says that one side's certificate proves nothing, or that TLS is missing; nothing was sent."""

    code = "untrusted"


class ConnectionLost(ClientError):
    """Says that the connection ended without the client asking for it."""

    code = "connection-lost"


class NotConnected(ClientError):
    """Says that the operation needs a connection and there is none."""

    code = "not-connected"


class DeadlinePassed(ClientError):
    """Says that no answer came within the time allowed."""

    code = "deadline-passed"


class ProtocolViolation(ClientError):
    """Says that the broker sent what the protocol forbids; the connection is closed."""

    code = "protocol-violation"
