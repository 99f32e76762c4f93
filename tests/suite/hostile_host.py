# A delegate's host that computes OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1, honestly or not: MODE says what it does wrong.
# Standard library only. The lines before these say which Python and which MODE.
import array
import json
import mmap
import os
import signal
import socket
import struct
import sys
import time

LOAD, MEMORY, RUN, TAKE, READY, REFUSED, OUTPUTS, TOO_SMALL, FAILED = 1, 2, 3, 4, 16, 17, 18, 19, 20
INT32 = 7
end = socket.socket(fileno=0)
memory, memory_file, held, runs, leaked, kept = None, None, 0, 0, [], None
with open(MODE["starts"], "ab") as starts:
    starts.write(b".")
    start = starts.tell()


def slots(body):
    (count,) = struct.unpack_from("<I", body)
    at, found = 4, []
    for _ in range(count):
        datatype, rank = struct.unpack_from("<BB", body, at)
        numbers = struct.unpack_from(f"<{rank + 2}Q", body, at + 2)
        found.append((datatype, numbers[:rank], numbers[rank], numbers[rank + 1]))
        at += 2 + 8 * (rank + 2)
    return found


def say(kind, *numbers, tail=b""):
    end.send(bytes([kind]) + struct.pack(f"<{len(numbers)}Q", *numbers) + tail)


def tell(run, shape, tensors, begin):
    offset, body, lie = (begin + 63) // 64 * 64, b"", MODE.get("lie")
    for elements in tensors:
        data = elements.tobytes()
        datatype, dims, place, length = INT32, shape, offset, len(data)
        if lie == "outside":
            place = held - 64
            if length <= 64:
                place = held
        elif lie == "far":
            place = 2**63
        elif lie == "over the inputs":
            place = 0
        elif lie == "short":
            length -= 4
        elif lie == "type":
            datatype = 10
        elif lie == "no type":
            datatype = 99
        elif lie == "shape":
            dims = (shape[1], shape[0])
        elif lie == "overflow":
            dims = (2**62, 2**62)
        elif lie == "unaligned":
            place += 1
        else:
            memory[offset : offset + length] = data
        body += struct.pack("<BB", datatype, len(dims)) + struct.pack(f"<{len(dims) + 2}Q", *dims, place, length)
        offset = (offset + len(data) + 63) // 64 * 64
    count = len(tensors) - 1 if lie == "count" else len(tensors)
    if lie == "torn":
        body = body[:-3]
    elif lie == "more":
        body += b"more"
    elif lie == "many":
        count = 2**31
    if lie == "id":
        run += 1
    if lie == "kind":
        end.send(bytes([77]) + struct.pack("<Q", run))
    elif lie == "nothing":
        end.send(b"\x12")
    elif lie == "huge":
        end.send(bytes([OUTPUTS]) + bytes(100_000))
    else:
        say(OUTPUTS, run, 0, tail=struct.pack("<I", count) + body)


def compute(inputs):
    tensors = []
    for _, _, offset, length in inputs:
        elements = array.array("i")
        elements.frombytes(memory[offset : offset + length])
        tensors.append(elements)
    first, second = tensors
    off = MODE.get("wrong", 0) if start >= MODE.get("wrong_from_start", 1) else 0
    total = array.array("i", (a + b + off for a, b in zip(first, second)))
    return [total, array.array("i", (a - b for a, b in zip(first, second)))]


while True:
    message, files, _, _ = socket.recv_fds(end, 65536, 1)
    if not message:
        sys.exit(0)
    kind, body = message[0], message[1:]
    if kind == LOAD:
        if "refuse" in MODE and start >= MODE.get("refuse_from_start", 1):
            end.send(bytes([REFUSED]) + MODE["refuse"].encode())
            continue
        if MODE.get("die_while_loading"):
            print("driver fault 17", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if MODE.get("hang_while_loading"):
            time.sleep(1000)
        protocol = MODE.get("protocol", json.loads(body)["protocol"])
        ready = {"protocol": protocol, "runtime": "0", "device": "a test", "placement": {}, "limited": False}
        end.send(bytes([READY]) + json.dumps(ready).encode())
    elif kind == MEMORY:
        (held,) = struct.unpack("<Q", body)
        memory_file, memory = files[0], mmap.mmap(files[0], held)
        if MODE.get("shrink"):
            try:
                os.ftruncate(memory_file, 0)
                print("it was shrunk", file=sys.stderr, flush=True)
            except PermissionError:
                pass
    elif kind == RUN:
        runs += 1
        run, begin = struct.unpack_from("<QQ", body)
        inputs = slots(body[16:])
        if runs == MODE.get("crash_at"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if runs == MODE.get("exit_at"):
            sys.exit(3)
        if runs == MODE.get("hang_at") or os.path.exists(MODE.get("hang_if", "")):
            time.sleep(1000)
        if MODE.get("leak"):
            leaked.append(b"x" * MODE["leak"])
        if runs > MODE.get("fail_from", 2**60):
            say(FAILED, run, tail=b"the device is lost")
            continue
        shape, tensors = inputs[0][1], compute(inputs)
        room = sum((len(elements) * 4 + 63) // 64 * 64 for elements in tensors)
        wanted = MODE.get("wants", room)
        if begin + wanted > held:
            say(TOO_SMALL, run, wanted)
            kept = (shape, tensors)
            continue
        # The first requests are the golden inputs, before anybody's.
        if MODE.get("lie") and runs <= MODE.get("honest", 1):
            lie = MODE.pop("lie")
            tell(run, shape, tensors, begin)
            MODE["lie"] = lie
        else:
            tell(run, shape, tensors, begin)
    elif kind == TAKE:
        run, begin = struct.unpack("<QQ", body)
        if MODE.get("wants_more"):
            say(TOO_SMALL, run, MODE["wants_more"])
        else:
            tell(run, *kept, begin)
