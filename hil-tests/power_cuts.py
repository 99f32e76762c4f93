#!/usr/bin/env python3
"""Power cuts of a whole machine: the gateway in a guest takes messages from outside, and the plug is pulled.

Everything that a PUBACK was read for must be there when the guest has started again from what its disk kept. The same with
commits that do not wait for the disk must lose something, or the test would prove nothing.
"""

import argparse
import hashlib
import itertools
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
from pathlib import Path

from guest import Guest, make_initramfs
from publisher import Publisher
from volatile_disk import CUTS, VolatileDisk

DISK_BYTES = 160 << 20
PUBLISHERS = 3
USER, KEY = "line", "only-for-this-guest"
#: So small that checkpoints and new starts of the log happen within a few hundred messages.
CONFIG = f"""
[gateway]
name = "power-cut"
[store]
state_dir = "/state/forebay"
max_bytes = 100000000
checkpoint_bytes = 393216
restart_bytes = 1048576
[catalog]
folder = "/tmp"
[http]
address = "0.0.0.0:8080"
hosts = ["127.0.0.1"]
[[mqtt.listener]]
address = "0.0.0.0:1883"
[[access.identity]]
name = "{USER}"
key_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
publish = ["hil/#"]
subscribe = ["hil/#", "forebay/#"]
[[stream]]
name = "power"
topic = "hil/power"
[stream.signal]
fields = [{{ name = "n", path = "n" }}]
[stream.signal.decoder]
id = "n"
[stream.cloud]
verdicts = true
"""


class Run:
    """One disk through many cuts, under one setting of `synchronous`."""

    def __init__(self, arguments, control, folder: Path, log):
        self.arguments, self.control, self.folder, self.log = arguments, control, folder, log
        self.chance = random.Random(f"{arguments.seed} {control}")
        self.numbers = itertools.count(1)
        self.owed, self.sent = set(), set()
        self.acknowledged = self.cuts = self.lost = self.lives_with_loss = 0
        self.at_stake = self.dropped = self.early = 0
        self.complaints = []
        socket = str(folder / f"disk-{control or 'full'}")
        blank = folder / "blank"
        with blank.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0", blank], check=True)
        self.disk = VolatileDisk(blank.read_bytes(), socket)
        self.socket = socket

    def start(self) -> Guest:
        self.disk.serve()
        where = (self.arguments.kernel, self.folder / "initramfs", self.socket)
        return Guest(*where, self.log, self.control)

    def run(self, cuts: int, until_lost: bool):
        kinds = itertools.cycle(self.chance.sample(CUTS, len(CUTS)))
        for life in range(cuts + 1):
            guest = self.start()
            try:
                # Some are cut while they recover from the cut before.
                if 0 < life < cuts and life % 7 == 3:
                    guest.wait_for("guest: mounted")
                    self.disk.fail_after(self.chance.randint(0, 40))
                    self.early += self.disk.failed.wait(timeout=10)
                elif not guest.wait_until_ready():
                    return self.all_lost("the guest does not start:\n" + guest.tail())
                else:
                    self.compare(guest)
                    if life == cuts or (until_lost and self.lost) or (self.complaints and not self.control):
                        return
                    self.load(guest, self.chance.choice([1, 20, 100, 300, 600]))
            finally:
                guest.kill()
            kind = next(kinds)
            at_stake = self.disk.cut(kind, self.chance)
            self.cuts += 1
            self.at_stake += at_stake["sectors"]
            self.dropped += at_stake["sectors"] - at_stake["kept"]
            name = self.control or "full"
            say(
                f"{name}: cut {self.cuts} of {cuts} ({kind}): {self.acknowledged} acknowledged so far, "
                f"{at_stake['kept']} of {at_stake['sectors']} sectors not flushed survived"
            )

    def compare(self, guest: Guest):
        """Every number that is owed is there, none twice, none that nobody sent, and all of them wait for the cloud."""
        if not any("cache is write back" in line for line in guest.lines):
            raise SystemExit("the guest does not see that its disk has a cache:\n" + guest.tail())
        if any("quarantine" in line for line in guest.lines):
            self.complain("the database was damaged and set aside")
        found, after, last_seq = [], 0, 0
        while True:
            try:
                page = guest.get(f"/api/v1/streams/power/readings?after_seq={after}&limit=5000", KEY)["readings"]
            except urllib.error.HTTPError as error:
                return self.all_lost(f"readings cannot be read: {error}")
            if not page:
                break
            for reading in page:
                if reading["seq"] <= last_seq:
                    self.complain(f"number {reading['seq']} follows {last_seq}")
                last_seq = reading["seq"]
            found.extend(int(reading["values"][0]) for reading in page)
            after = last_seq
        there = set(found)
        if len(there) < len(found):
            self.complain(f"{len(found) - len(there)} readings are there twice")
        if there - self.sent:
            self.complain(f"{len(there - self.sent)} readings that nobody sent")
        queued = sum(stream["rows"] for stream in guest.get("/api/v1/queue", KEY)["streams"])
        if queued < len(there):
            self.complain(f"{len(there)} readings, and only {queued} rows for the cloud")
        lost = self.owed - there
        if lost:
            self.lost += len(lost)
            self.lives_with_loss += 1
            self.complain(f"{len(lost)} acknowledged messages are gone, such as {sorted(lost)[:5]}")
        self.owed &= there

    def load(self, guest: Guest, wanted: int):
        enough, lock, acknowledged = threading.Event(), threading.Lock(), set()

        def note(number):
            with lock:
                acknowledged.add(number)
                if len(acknowledged) >= wanted:
                    enough.set()

        publishers = [
            Publisher(guest.mqtt_port, USER, KEY, "hil/power", self.numbers, note) for _ in range(PUBLISHERS)
        ]
        for publisher in publishers:
            publisher.start()
        if not enough.wait(timeout=120):
            raise SystemExit(f"{len(acknowledged)} of {wanted} acknowledged after 120 s:\n" + guest.tail())
        # What a control has not synced is in the guest's memory: it goes at once, before the kernel writes it by itself.
        if not self.control:
            self.disk.fail_after(self.chance.randint(0, 30))
            self.disk.failed.wait(timeout=2 * self.chance.random())
        guest.kill()
        for publisher in publishers:
            publisher.join()
            self.sent |= publisher.sent
        self.owed |= acknowledged
        self.acknowledged += len(acknowledged)

    def all_lost(self, why):
        if not self.cuts:
            raise SystemExit(why)
        self.lost += len(self.owed)
        self.lives_with_loss += 1
        self.complain(why)

    def complain(self, what):
        self.complaints.append(f"after cut {self.cuts}: {what}")
        say(f"{self.control or 'full'}: after cut {self.cuts}: {what}")


def say(text):
    print(text, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forebay", type=Path, required=True, help="the gateway's file, static or not")
    parser.add_argument("--kernel", type=Path, required=True, help="an unpacked linux-image package")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--control-cuts", type=int, default=6, help="at most, for each negative control")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--log", type=Path, required=True, help="what the guests said")
    arguments = parser.parse_args()
    say(f"seed {arguments.seed}; what the guests say: {arguments.log}")
    began, good = time.monotonic(), True
    with tempfile.TemporaryDirectory() as name, arguments.log.open("w") as log:
        folder = Path(name)
        make_initramfs(folder, arguments.forebay, arguments.kernel, CONFIG)
        for control in (None, "normal", "off"):
            run = Run(arguments, control, folder, log)
            run.run(arguments.control_cuts if control else arguments.cuts, until_lost=control is not None)
            good &= verdict(run)
    say(f"{'HOLDS' if good else 'BROKEN'}, {time.monotonic() - began:.0f} s")
    return 0 if good else 1


def verdict(run: Run) -> bool:
    # What a control loses never came as far as the disk.
    at_all = run.acknowledged > 0 and run.disk.writes > 0 and (run.at_stake > 0 or run.control is not None)
    say(
        f"{run.control or 'full'}: {run.cuts} cuts ({run.early} of them during a start), {run.acknowledged} messages acknowledged, "
        f"{run.disk.writes} writes and {run.disk.flushes} flushes reached the disk, {run.dropped} of {run.at_stake} sectors "
        f"at stake were dropped; {run.lost} acknowledged messages lost in {run.lives_with_loss} cuts"
    )
    if not at_all:
        say("  NOT PROVED: nothing was acknowledged, written or at stake")
        return False
    if run.control:
        say("  caught, as it must be" if run.complaints else "  NOT caught: this test proves nothing")
        return bool(run.complaints)
    return not run.complaints and run.disk.flushes > 0


if __name__ == "__main__":
    sys.exit(main())
