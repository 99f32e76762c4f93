"""An MQTT 3.1.1 publisher that keeps an exact account: a number is acknowledged when its PUBACK was read, not before."""

import itertools
import json
import socket
import struct
import threading

WINDOW = 16
_CONNECT, _CONNACK, _PUBLISH_QOS_1, _PUBACK = 0x10, 0x20, 0x32, 0x40


class Publisher(threading.Thread):
    """Publishes the numbers of `numbers` until its connection ends. Nothing is sent twice."""

    def __init__(self, port: int, user: str, key: str, topic: str, numbers, acknowledged):
        super().__init__(daemon=True)
        self._port, self._user, self._key, self._topic = port, user, key, topic
        self._numbers, self._acknowledged = numbers, acknowledged
        #: What was handed to the connection, acknowledged or not.
        self.sent = set()

    def run(self):
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=30) as connection:
                self._publish(connection)
        except (OSError, EOFError):
            pass  # the guest was killed

    def _publish(self, connection):
        strings = b"".join(_string(text) for text in (f"hil-{self._user}-{id(self)}", self._user, self._key))
        body = _string("MQTT") + bytes([4, 0xC2]) + struct.pack(">H", 60) + strings
        connection.sendall(_packet(_CONNECT, body))
        incoming = connection.makefile("rb")
        kind, answer = _read_packet(incoming)
        if kind != _CONNACK or answer[1] != 0:
            raise SystemExit(f"the gateway refused the publisher: {answer.hex()}")
        under_way, ids = {}, itertools.cycle(range(1, 65536))
        while True:
            while len(under_way) < WINDOW:
                number, id_ = next(self._numbers), next(ids)
                payload = json.dumps({"n": number, "note": "x" * (number * 7919 % 300)}).encode()
                self.sent.add(number)
                under_way[id_] = number
                connection.sendall(_packet(_PUBLISH_QOS_1, _string(self._topic) + struct.pack(">H", id_) + payload))
            kind, answer = _read_packet(incoming)
            if kind == _PUBACK:
                self._acknowledged(under_way.pop(struct.unpack(">H", answer[:2])[0]))


def _string(text):
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _packet(kind, body):
    length, head = len(body), bytearray([kind])
    while True:
        length, digit = divmod(length, 128)
        head.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(head) + body


def _read_packet(incoming):
    kind, length, shift = _exactly(incoming, 1)[0], 0, 0
    while True:
        digit = _exactly(incoming, 1)[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return kind, _exactly(incoming, length)


def _exactly(incoming, length):
    data = incoming.read(length)
    if len(data) < length:
        raise EOFError
    return data
