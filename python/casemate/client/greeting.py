"""What a client says of itself when it connects."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from casemate import native
from casemate.client.exchange import ALIASES_MAX
from casemate.client.message import Will

_FIELD_BYTES_MAX = 65_535
"""A field's length is written in two bytes (MQTT 5.0 §1.5.4, §1.5.6)."""


class Greeting:
    """Writes the CONNECT of one client, again for each connection.

    Attributes:
        version: 5, 4 (MQTT 3.1.1) or 3 (MQTT 3.1).
        client_id: Empty until the broker has chosen one.
        keep_alive_s: Asked for; 0 is none.
        clean_start: Whether the first connection forgets the session that the broker may have.
        receive_max: QoS 1 and 2 messages that may wait for the program.
        packet_bytes_max: Largest packet that is read, in bytes.
    """

    def __init__(
        self,
        version: int,
        client_id: str,
        *,
        username: str | None,
        password: str | bytes | None,
        keep_alive_s: int,
        clean_start: bool,
        session_expiry_s: int,
        will: Will | None,
        user: Iterable[tuple[str, str]],
        receive_max: int,
        packet_bytes_max: int,
    ) -> None:
        """Checks what can be checked; arguments as of `Client`.

        Raises:
            ValueError: A number is out of its range.
        """
        if version not in (3, 4, 5):
            raise ValueError("version is 3, 4 or 5")
        if not 0 <= keep_alive_s <= 65_535 or not 1 <= receive_max <= 65_535:
            raise ValueError("keep_alive_s is 0–65,535 and receive_max 1–65,535")
        if not 0 <= session_expiry_s <= 0xFFFF_FFFF or packet_bytes_max < 256:
            raise ValueError("session_expiry_s is 0–4,294,967,295, packet_bytes_max at least 256")
        secret = password.encode() if isinstance(password, str) else password
        if secret is not None and username is None and version != 5:  # MQTT 3.1.1 §3.1.2.9.
            raise ValueError("before MQTT 5.0 a password needs a user name")
        pairs = list(user)
        _admit_bytes("the password", secret or b"")
        for name, text in (("client_id", client_id), ("username", username or "")):
            _admit_text(name, text)
        for pair in pairs:
            for text in pair:
                _admit_text("a user property", text)
        self.version = version
        if not client_id and version == 3:  # MQTT 3.1 §3.1 has no empty client id.
            client_id = f"casemate-{secrets.token_hex(7)}"
        self.client_id = client_id
        self._username = username
        self._password = secret
        self.keep_alive_s = keep_alive_s
        self.clean_start = clean_start
        self._session_expiry_s = session_expiry_s
        self._will = None if will is None else will.native()
        self._user = pairs
        self.receive_max = receive_max
        self.packet_bytes_max = packet_bytes_max

    def starts_clean_again(self) -> bool:
        """Says whether a further connection of this client forgets the session.

        Before 5.0 a session ends with its connection exactly where it began clean; in 5.0 one
        that was to outlive its connection is resumed.
        """
        return self.clean_start and not (self.version == 5 and self._session_expiry_s > 0)

    def encode(self, *, clean_start: bool) -> bytes:
        """Gives the CONNECT."""
        modern = self.version == 5
        return native.encode_connect(
            self.version,
            self.client_id,
            clean_start=clean_start,
            keep_alive_s=self.keep_alive_s,
            username=self._username,
            password=self._password,
            will=self._will,
            session_expiry_s=self._session_expiry_s if modern else None,
            receive_max=self.receive_max if modern else None,
            packet_bytes_max=self.packet_bytes_max if modern else None,
            topic_alias_max=ALIASES_MAX if modern else None,
            request_response_information=True if modern else None,
            user=self._user if modern else [],
        )


def _admit_text(name: str, text: str) -> None:
    """Raises ValueError where text cannot stand in a packet (MQTT 5.0 §1.5.4)."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        # Without the codec's own words, which would repeat the text.
        raise ValueError(f"{name} cannot be written as UTF-8") from None
    if b"\0" in data:
        raise ValueError(f"{name} holds a null character")
    _admit_bytes(name, data)


def _admit_bytes(name: str, data: bytes) -> None:
    if len(data) > _FIELD_BYTES_MAX:
        raise ValueError(f"{name} is longer than {_FIELD_BYTES_MAX:,} bytes")
