"""What `casemate doctor` may find: each check by its name, how grave it is, and what it risks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Weight = Literal["danger", "warning", "note", "advice"]

RISKS: dict[str, tuple[Weight, str]] = {
    "file-open": (
        "danger",
        "Another account of this machine can read a secret or decide over access.",
    ),
    "file-missing": ("danger", "The home is not whole, and the broker does not start."),
    "configuration-wrong": ("danger", "A start fails, and a reload leaves the old configuration."),
    "policy-wrong": ("danger", "A start fails, and a running broker keeps the old policy."),
    "accounts-unreadable": ("danger", "Nobody can be recognised, so everybody is refused."),
    "plaintext": ("danger", "Everybody on the way reads and changes passwords and messages."),
    "anonymous-network": ("danger", "Whoever reaches the address has the rights of the role."),
    "anonymous-local": ("warning", "Every program of this machine has the rights of the role."),
    "tls12": ("warning", "TLS 1.2 shows client certificates to everybody on the way."),
    "proxy-anywhere": ("danger", "Strangers claim any address, and logs name the wrong one."),
    "socket-open": ("warning", "Other accounts of this machine can connect."),
    "certificates-off": (
        "warning",
        "A password is the only proof, and can be guessed, shared or stolen.",
    ),
    "limit-off": ("warning", "One client can use up what is there for all of them."),
    "log-silent": ("warning", "Refused logins leave no line, so that fail2ban stops nobody."),
    "wide-publish": ("danger", "One stolen key can speak for every device."),
    "wide-subscribe": ("warning", "One stolen key can listen to every device."),
    "client-id-rule": ("warning", "Clients choose their client id, and so whose topics they use."),
    "role-undefined": (
        "warning",
        "Whoever holds the role is refused whatever it allows elsewhere.",
    ),
    "certificate-expired": ("danger", "Clients refuse the broker, or are refused by it."),
    "certificate-ending": ("warning", "After that day no client connects."),
    "certificate-unreadable": ("danger", "The listener cannot be opened with it."),
    "account-expired": ("warning", "It cannot prove itself with its certificate any more."),
    "account-ending": ("warning", "After that day it cannot prove itself with its certificate."),
    "clock-behind": ("danger", "Expired certificates count as valid, and new ones do not yet."),
    "authority-key": ("note", "Whoever copies the home can make a certificate for any name."),
    "durability-memory": (
        "warning",
        "Sessions, retained messages and what waits are gone with the process.",
    ),
    "durability-os": ("note", "Loss of power takes what was acknowledged in the last seconds."),
    "store-plain": (
        "advice",
        "Whoever copies the disk reads what is kept: messages, names, topics.",
    ),
    "store-mixed": ("warning", "Who can write to the folder can put in what was never sent."),
    "store-key": ("danger", "A start fails, and without its key nothing of the store is read."),
    "store-damaged": ("danger", "Something of what was acknowledged is lost."),
    "store-unreadable": ("danger", "A start fails until it is mended."),
    "store-failing": ("danger", "What must be kept is refused, and publishers have to keep it."),
    "broker-problem": ("warning", "A change on disk is not in force in the running broker."),
    "broker-silent": ("danger", "It has stopped to report, and may hang."),
    "not-in-force": ("warning", "What the home says is not what the broker does."),
    "weakened-in-force": ("danger", "The broker allows what nobody finds in its files."),
}
"""Each check: what it weighs, and the risk in one sentence."""

EXIT_CODES: dict[Weight | None, int] = {None: 0, "advice": 0, "note": 0, "warning": 1, "danger": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """Is one deviation from what is safe.

    Attributes:
        check: A key of `RISKS`.
        words: What was found, and where.
        mend: The command, or the line to change, that mends it.
    """

    check: str
    words: str
    mend: str

    @property
    def weight(self) -> Weight:
        """How grave it is."""
        return RISKS[self.check][0]

    @property
    def risk(self) -> str:
        """What may come of it."""
        return RISKS[self.check][1]


def worst(findings: list[Finding]) -> Weight | None:
    """Gives the gravest weight of all; None where nothing but advice was found."""
    weights: tuple[Weight, ...] = ("danger", "warning", "note")
    return next((one for one in weights if any(found.weight == one for found in findings)), None)
