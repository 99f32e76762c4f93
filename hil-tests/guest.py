"""A guest: Debian's cloud kernel, a small initramfs with busybox and the gateway, one disk, emulated by QEMU."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

#: In the order in which they are loaded.
_MODULES = (
    "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk failover net_failover virtio_net"
).split()
_READY = re.compile(r"\bready\b.*mqtt=")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: Emulation on a busy machine is slow; a guest that is silent for so long is dead.
_START_S = 180

_INIT = """#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
for module in $($bb cat /modules/order); do $bb insmod /modules/$module.ko; done
$bb ifconfig lo up
$bb ifconfig eth0 10.0.2.15 netmask 255.255.255.0
echo "guest: the disk's cache is $($bb cat /sys/block/vda/queue/write_cache)"
$bb mount -t ext4 /dev/vda /state || { echo "guest: the disk does not mount"; $bb poweroff -f; }
echo "guest: mounted, $($bb ls /state/forebay 2>/dev/null | $bb tr '\\n' ' ')"
exec /forebay run --config /forebay.toml ${control:+--negative-control $control}
"""


def make_initramfs(folder: Path, forebay: Path, kernel: Path, config: str) -> Path:
    """`kernel` is an unpacked linux-image package. A program that is not static brings its libraries."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "modules", "proc", "sys", "dev", "state", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    shutil.copy(forebay, root / "forebay")
    for program in (root / "bin/busybox", root / "forebay"):
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", libraries):
            (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / library[1:])
    for module in _MODULES:
        (found,) = kernel.rglob(f"{module}.ko")
        shutil.copy(found, root / "modules")
    (root / "modules/order").write_text("\n".join(_MODULES))
    (root / "forebay.toml").write_text(config)
    (root / "init").write_text(_INIT)
    (root / "init").chmod(0o755)
    image = folder / "initramfs"
    with image.open("wb") as out:
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, input=names.encode(), stdout=out, check=True)
    return image


class Guest:
    """Running from its construction until it is killed."""

    def __init__(self, kernel: Path, initramfs: Path, disk_socket: str, log, control: str | None = None):
        self.mqtt_port, self._http_port = _free_port(), _free_port()
        forward = f"hostfwd=tcp:127.0.0.1:{self.mqtt_port}-:1883,hostfwd=tcp:127.0.0.1:{self._http_port}-:8080"
        (image,) = kernel.glob("boot/vmlinuz-*")
        # Never KVM: whether it works depends on the machine, and it hangs Debian's kernel on some.
        command = f"""qemu-system-x86_64 -accel tcg -machine q35 -cpu max -smp 1 -m 384 -nodefaults -no-reboot -display none
          -serial stdio -monitor none -kernel {image} -initrd {initramfs}
          -drive if=virtio,format=raw,cache=writeback,file=nbd+unix:///?socket={disk_socket}
          -netdev user,id=net,restrict=on,{forward} -device virtio-net-pci,netdev=net,romfile="""
        kernel_line = "console=ttyS0 no_timer_check panic=-1 quiet" + (f" control={control}" if control else "")
        self._process = subprocess.Popen(
            [*command.split(), "-append", kernel_line],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        self.lines = []
        self._news = threading.Condition()
        self._ended = False
        self._log = log
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            line = _COLOUR.sub("", line)
            self._log.write(line)
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, pattern) -> str | None:
        """The first line that fits; None if the guest ended before."""
        until, seen = time.monotonic() + _START_S, 0
        with self._news:
            while True:
                for line in self.lines[seen:]:
                    if re.search(pattern, line):
                        return line
                seen = len(self.lines)
                if self._ended:
                    return None
                if not self._news.wait(until - time.monotonic()):
                    raise SystemExit(f"the guest said nothing of {pattern!r} for {_START_S} s:\n" + self.tail())

    def wait_until_ready(self) -> bool:
        return self.wait_for(_READY) is not None

    def tail(self) -> str:
        return "\n".join(self.lines[-30:])

    def get(self, path: str, key: str):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._http_port}{path}", headers={"authorization": f"Bearer {key}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def kill(self):
        """The plug is pulled."""
        self._process.kill()
        self._process.wait()
        self._reader.join()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
