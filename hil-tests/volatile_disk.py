"""A disk with a volatile cache, served over NBD: on a power cut, what was not flushed survives in part, by chance.

Killing a virtual machine whose disk is a file is no power cut: the host keeps every write that the guest made, flushed or not.
Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

import random
import socket
import struct
import threading

SECTOR_BYTES = 512
#: What became of the writes since the last flush.
CUTS = ["nothing", "everything", "prefix", "torn", "subset", "sectors"]

_READ, _WRITE, _DISCONNECT, _FLUSH = range(4)
_FUA = 1
_EINVAL = 22
#: https://www.kernel.org/doc/html/latest/filesystems/ext4/journal.html: a block's first words; commit, superblocks.
_JBD2, _JBD2_ALONE = 0xC03B3998, (2, 3, 4)
#: Where ext4's superblock lies.
_EXT4_AT = 1024
#: Has flags, takes flushes, takes single writes that must be durable.
_EXPORT_FLAGS = 1 | 4 | 8
_OPT_EXPORT_NAME, _OPT_ABORT, _OPT_INFO, _OPT_GO = 1, 2, 6, 7
_REP_ACK, _REP_INFO, _REP_ERR_UNSUP = 1, 3, 1 << 31 | 1


class VolatileDisk:
    """One guest at a time; its writes are in order, and a flush is durable when it is answered."""

    def __init__(self, content: bytes, path: str):
        self.stable = bytearray(content)
        self.now = bytearray(content)
        #: Writes since the last flush: (offset, bytes, is durable by itself).
        self.pending = []
        self.flushes = 0
        self.writes = 0
        #: Set when the disk has stopped answering.
        self.failed = threading.Event()
        self._requests_left = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._serving = None

    def serve(self):
        """Answers the next guest that connects, in the background."""
        self.failed.clear()
        self._requests_left = None
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    def fail_after(self, requests: int):
        """Answers no more after so many writes and flushes, as soon as something is at stake: the power fails between two
        of them, not between two messages."""
        self._requests_left = requests

    def cut(self, kind: str, chance: random.Random) -> dict:
        """The guest is dead: decides what survived, and says how much was at stake."""
        self._serving.join()
        count = lambda writes: sum(len(data) for _, data, durable in writes if not durable) // SECTOR_BYTES
        kept = self._survivors(kind, chance)
        at_stake = {"writes": len(self.pending), "sectors": count(self.pending), "kept": count(kept)}
        for offset, data, _ in kept:
            self.stable[offset : offset + len(data)] = data
        self.pending = []
        self.now = bytearray(self.stable)
        return at_stake

    def _survivors(self, kind, chance):
        pending = self.pending
        end = {"nothing": 0, "everything": len(pending)}.get(kind, chance.randint(0, len(pending)))
        if kind in ("nothing", "everything", "prefix", "torn"):
            kept = [(n < end, write) for n, write in enumerate(pending)]
        else:
            share = chance.random()
            kept = [(kind == "subset" and chance.random() < share, write) for write in pending]
        survivors = []
        for n, (is_kept, write) in enumerate(kept):
            if is_kept or write[2]:
                survivors.append(write)
            elif kind == "sectors" or (kind == "torn" and n == end):
                survivors.extend(_some_sectors(write, chance))
        return survivors

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as incoming:
            try:
                if self._shake_hands(incoming, connection):
                    while self._answer(incoming, connection):
                        pass
            except (OSError, EOFError):
                pass  # the guest was killed

    def _shake_hands(self, incoming, out):
        out.sendall(struct.pack(">8s8sH", b"NBDMAGIC", b"IHAVEOPT", 1))
        _read(incoming, 4)
        while True:
            _, option, length = struct.unpack(">QII", _read(incoming, 16))
            _read(incoming, length)
            reply = lambda kind, data=b"": out.sendall(
                struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data
            )
            export = struct.pack(">QH", len(self.now), _EXPORT_FLAGS)
            if option == _OPT_EXPORT_NAME:
                out.sendall(export + bytes(124))
                return True
            if option in (_OPT_INFO, _OPT_GO):
                reply(_REP_INFO, struct.pack(">H", 0) + export)
                reply(_REP_ACK)
                if option == _OPT_GO:
                    return True
            elif option == _OPT_ABORT:
                return False
            else:
                reply(_REP_ERR_UNSUP)

    def _answer(self, incoming, out):
        _, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", _read(incoming, 28))
        if kind in (_WRITE, _FLUSH) and self._requests_left is not None:
            self._requests_left -= 1
            if self._requests_left < 0 and self.pending:
                self.failed.set()
                while incoming.read(1 << 16):
                    pass
                return False
        error, answer = 0, b""
        if kind == _READ:
            answer = bytes(self.now[offset : offset + length])
        elif kind == _WRITE:
            data = _read(incoming, length)
            self.now[offset : offset + length] = data
            self.pending.append((offset, data, bool(flags & _FUA)))
            self.writes += 1
        elif kind == _FLUSH:
            for at, data, _ in self.pending:
                self.stable[at : at + len(data)] = data
            self.pending = []
            self.flushes += 1
        elif kind == _DISCONNECT:
            return False
        else:
            error = _EINVAL
        out.sendall(struct.pack(">IIQ", 0x67446698, error, handle) + answer)
        return True


def _is_one_piece(write):
    """What ext4 itself needs a disk to write whole or not at all: a journal's commit and superblock, the file system's
    superblock. One that is torn has a wrong checksum, and ext4 refuses to mount, before any program of ours runs."""
    offset, data, _ = write
    magic, kind = struct.unpack_from(">II", data)
    return (magic == _JBD2 and kind in _JBD2_ALONE) or (offset <= _EXT4_AT < offset + len(data))


def _some_sectors(write, chance):
    offset, data, _ = write
    if _is_one_piece(write):
        if chance.random() < 0.5:
            yield write
        return
    for at in range(0, len(data), SECTOR_BYTES):
        if chance.random() < 0.5:
            yield (offset + at, data[at : at + SECTOR_BYTES], False)


def _read(incoming, length):
    data = incoming.read(length)
    if len(data) < length:
        raise EOFError
    return data
