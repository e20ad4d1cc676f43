"""A relay on loopback that cuts connections when told to, and sees what the broker sends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

CHUNK_BYTES = 65_536
PUBLISH, PUBACK, PUBCOMP = 3, 4, 7


@dataclass
class Witness:
    """Reads the packets of one connection in plaintext, and remembers what limits are about.

    Attributes:
        unacknowledged_max: The most messages of QoS 1 and 2 that were under way to the client.
        packet_bytes_max: The longest packet to the client, its fixed header included.
        aliased: How many messages came to the client with an alias in place of their topic.
    """

    unacknowledged_max: int = 0
    packet_bytes_max: int = 0
    aliased: int = 0
    _unacknowledged: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tails: dict[bool, bytearray] = field(
        default_factory=lambda: {True: bytearray(), False: bytearray()}
    )

    def begin(self) -> None:
        """Starts with another connection."""
        with self._lock:
            self._unacknowledged = 0
            for tail in self._tails.values():
                tail.clear()

    def see(self, from_broker: bool, chunk: bytes) -> None:
        """Takes bytes as they pass, before they are passed on."""
        tail = self._tails[from_broker]
        tail += chunk
        while (length := _packet_bytes(tail)) is not None and len(tail) >= length:
            packet = bytes(tail[:length])
            del tail[:length]
            with self._lock:
                self._packet(from_broker, packet)

    def _packet(self, from_broker: bool, packet: bytes) -> None:
        kind, qos = packet[0] >> 4, packet[0] >> 1 & 3
        if from_broker:
            self.packet_bytes_max = max(self.packet_bytes_max, len(packet))
            if kind == PUBLISH:
                header = next(at for at in range(1, 5) if packet[at] < 0x80) + 1
                self.aliased += packet[header : header + 2] == b"\0\0"
                if qos:
                    self._unacknowledged += 1
                    self.unacknowledged_max = max(self.unacknowledged_max, self._unacknowledged)
        elif kind in (PUBACK, PUBCOMP):
            self._unacknowledged -= 1


def _packet_bytes(tail: bytearray) -> int | None:
    """Gives the length of the first packet; None where it cannot be told yet."""
    length = 0
    for at in range(1, min(5, len(tail))):
        length |= (tail[at] & 0x7F) << 7 * (at - 1)
        if tail[at] < 0x80:
            return 1 + at + length
    return None


class Relay:
    """Forwards connections both ways until it is cut; after that it takes none."""

    def __init__(self, port: int, *cuts: int) -> None:
        """Forwards to this port of loopback.

        Args:
            port: Of the broker.
            cuts: After so many bytes, of both ways together, a connection is cut, and the next one
                is taken; the following number counts from there.
        """
        self._to = port
        self._cuts = list(cuts)
        self._passed_bytes = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.witness = Witness()
        self._start(self._accept)

    def cut(self) -> None:
        """Cuts every connection without a word, and refuses those that follow."""
        # A listener that is only closed would stay with the thread that waits for it.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for one in self._sockets:
            one.close()

    @property
    def is_through(self) -> bool:
        """Whether all its cuts were made."""
        return not self._cuts

    def _until_cut(self, chunk: bytes) -> bytes:
        with self._lock:
            if self._cuts and self._passed_bytes + len(chunk) > self._cuts[0]:
                left = self._cuts.pop(0) - self._passed_bytes
                self._passed_bytes = 0
                return chunk[:left]
            self._passed_bytes += len(chunk)
            return chunk

    def _start(self, what: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self._to))
            self.witness.begin()
            self._sockets += [client, broker]
            self._start(self._copy, client, broker, False)
            self._start(self._copy, broker, client, True)

    def _copy(self, source: socket.socket, sink: socket.socket, from_broker: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                passing = self._until_cut(chunk)
                self.witness.see(from_broker, passing)
                sink.sendall(passing)
                if len(passing) < len(chunk):
                    source.shutdown(socket.SHUT_RDWR)
                    break
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
