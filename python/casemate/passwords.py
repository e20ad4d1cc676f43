"""Passwords: which are strong enough, what one guess costs, and how one is chosen."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass

import argon2
from argon2.exceptions import Argon2Error, InvalidHashError

from casemate.errors import WeakPassword

PASSWORD_CHARACTERS_MIN = 10
PASSWORD_BYTES_MAX = 1_024
PASSWORD_SCORE_MIN = 3

_SALT_BYTES = 16
_HASH_BYTES = 32
# Words of this product and protocol: the first that anyone tries.
_SITE_WORDS = ("casemate", "mqtt", "broker", "mosquitto", "sensor", "device", "operator")
# No letter or digit that is read as another (0 O 1 I L).
_GENERATED_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
# zxcvbn refuses longer texts; the strength of a prefix is a lower bound of the whole.
_SCORED_CHARACTERS_MAX = 72


@dataclass(frozen=True, slots=True)
class PasswordCost:
    """States what one guess of a password costs under Argon2id.

    Attributes:
        time: Passes over the memory, 1–16.
        memory_kib: Memory of one computation, 8–1,048,576 KiB.
        lanes: Parallel lanes, 1–16; one, because the broker hashes for many clients at once.

    Source: RFC 9106 §4 (second recommended option, with one lane in place of four).
    """

    time: int = 3
    memory_kib: int = 65_536
    lanes: int = 1


class Hasher:
    """Hashes passwords with Argon2id at one cost, and checks them at whatever cost they have.

    Releases the interpreter's lock while it computes.

    Args:
        cost: Cost of new hashes.
    """

    def __init__(self, cost: PasswordCost) -> None:
        self.cost = cost
        self._argon2 = argon2.PasswordHasher(
            time_cost=cost.time,
            memory_cost=cost.memory_kib,
            parallelism=cost.lanes,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
        )
        self.nobody: str = _hash_of_nobody(cost)
        """A hash that no password matches and that costs as much to try as a real one."""

    def hash(self, secret: bytes) -> str:
        """Hashes a password with a fresh salt, into the PHC string format."""
        return self._argon2.hash(secret)

    def renewed(self, secret: bytes, stored: str) -> str:
        """Hashes a password at today's cost with the salt that it has.

        The salt is chosen when the password is, so that it tells a new password from an old one
        that became dearer to guess.
        """
        salt = stored.split("$")[-2]
        return self._argon2.hash(secret, salt=base64.b64decode(salt + "=" * (-len(salt) % 4)))

    def matches(self, stored: str, secret: bytes) -> bool:
        """Tells whether a password has this hash; a damaged hash matches nothing."""
        try:
            return self._argon2.verify(stored, secret)
        except (Argon2Error, InvalidHashError):
            return False

    def is_cheap(self, stored: str) -> bool:
        """Tells whether a valid hash costs less to guess than new ones do."""
        parameters = argon2.extract_parameters(stored)
        return (
            parameters.time_cost < self.cost.time or parameters.memory_cost < self.cost.memory_kib
        )


def admit_password(name: str, password: str) -> None:
    """Refuses a password that is too easy for the account of this name.

    Args:
        name: The account; a name of three or more characters may not be part of the password.
        password: At least 10 characters, at most 1,024 bytes of UTF-8, and a zxcvbn score of
            at least 3 of 4 when the name and words of this product are known to the guesser.

    Raises:
        WeakPassword: It is too easy; the hint says what would help. Never holds the password.

    Source: NIST SP 800-63B §5.1.1.2; the `-b` option of another broker's password tool, which
        took the name for the password.
    """
    if len(password) < PASSWORD_CHARACTERS_MIN:
        raise WeakPassword(
            f"the password is shorter than {PASSWORD_CHARACTERS_MIN} characters",
            hint="use a few unrelated words, or let --generate choose one",
        )
    secret = octets(password)
    if secret is None or len(secret) > PASSWORD_BYTES_MAX:
        raise WeakPassword(
            f"the password is longer than {PASSWORD_BYTES_MAX:,} bytes, or not valid text"
        )
    if any(not character.isprintable() for character in password):
        raise WeakPassword(
            "the password holds a control character", hint="look for a line break in the file"
        )
    folded = password.casefold()
    if folded == name.casefold() or (len(name) >= 3 and name.casefold() in folded):
        raise WeakPassword("the password contains the name of the account")
    known = [name, *name.replace("@", ".").replace("-", ".").split("."), *_SITE_WORDS]
    # Loaded where a password is chosen: its dictionaries cost every other start 20 ms.
    from zxcvbn import zxcvbn

    rating = zxcvbn(password[:_SCORED_CHARACTERS_MAX], user_inputs=known)
    if rating["score"] < PASSWORD_SCORE_MIN:
        advice = " ".join(rating["feedback"]["suggestions"]).rstrip(".").lower()
        raise WeakPassword(
            f"the password is too easy to guess (strength {rating['score']} of 4,"
            f" {PASSWORD_SCORE_MIN} needed)",
            hint=advice or "use a few unrelated words, or let --generate choose one",
        )


def generate_password(name: str) -> str:
    """Chooses a password of 125 random bits that is easy to copy by hand."""
    while True:
        groups = ("".join(secrets.choice(_GENERATED_ALPHABET) for _ in range(5)) for _ in range(5))
        password = "-".join(groups)
        try:
            admit_password(name, password)
        except WeakPassword:
            # By chance it holds a very short name; the next one will not.
            continue
        return password


def octets(password: str | bytes | None) -> bytes | None:
    """Gives the bytes of a password; None for none, and for text that UTF-8 cannot say."""
    if password is None or isinstance(password, bytes):
        return password
    try:
        return password.encode("utf-8")
    except UnicodeEncodeError:
        return None


def _hash_of_nobody(cost: PasswordCost) -> str:
    """Makes a hash that no password matches and that costs as much to try as a real one."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).rstrip(b"=").decode("ascii")
        for size in (_SALT_BYTES, _HASH_BYTES)
    )
    return f"$argon2id$v=19$m={cost.memory_kib},t={cost.time},p={cost.lanes}${salt}${digest}"
