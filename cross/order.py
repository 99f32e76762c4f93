"""Puts functions into the order of their use (docs/decisions/0045).

order.py write PROGRAM CALLGRIND_FILE...   prints the linker script; PROGRAM has its names
order.py check PROGRAM                     says whether the linker found what the script names
"""

import collections
import pathlib
import re
import struct
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).with_name("order.ld")
# What the compiler appends to a name: a digest of the crates that it was built with, which changes with each of them. The
# standard library's names are of another kind and hold for one version of the compiler.
DIGEST = re.compile(r"17h[0-9a-f]{16}E(\.llvm\.\d+)?$")
# Calls from which on a function belongs to the work and not to its beginning.
OFTEN = 150
# What may be missing in front before somebody should look: each change of a dependency gives some functions other names.
MISSING_MAX = 0.1


def ran(path):
    """The functions in the order in which the file has them, and how often each was called."""
    names, calls, order = {}, collections.Counter(), {}

    def name(text):
        # The file gives each name once, with a number that stands for it afterwards; ' begins a level of recursion.
        number, said = re.match(r"\((\d+)\)(?: (.*))?", text).groups()
        if said:
            names[number] = said.split("'")[0]
        return names[number]

    called = None
    with open(path) as lines:
        for line in lines:
            if line.startswith("fn="):
                order.setdefault(name(line[3:].strip()))
            elif line.startswith("cfn="):
                called = name(line[4:].strip())
            elif line.startswith("calls="):
                calls[called] += int(line[6:].split()[0])
    return list(order), calls


def write(program, *paths):
    symbols = subprocess.run(["nm", "-S", "--defined-only", program], check=True, capture_output=True, text=True).stdout
    there = {}
    for line in symbols.splitlines():
        fields = line.split()
        there[fields[-1]] = int(fields[1], 16) if len(fields) == 4 else 0
    alike = collections.Counter(DIGEST.sub("", symbol) for symbol in there)
    # Who is called for each request comes first, one kind of work after the other, so that a request finds its own on few
    # pages. The bench asks some 1,500 times and for 200 streams. Who ran less, at the start mostly, follows.
    often, rest = [], []
    for path in paths:
        order, calls = ran(path)
        often += sorted((one for one in order if calls[one] >= OFTEN), key=lambda one: -calls[one])
        rest += order
    chosen = [one for one in dict.fromkeys(often + rest) if one in there]
    print("/* What the static file is laid out by: functions in the order of how often chats call them, then readings, then what")
    print("   ran at all, as seen under callgrind. Written by cross/order.sh (docs/decisions/0045). A name that several instances of a")
    print("   generic function share stands with its digest; others do without, so that they outlive a change of a crate.")
    print(f"   They are {sum(there[one] for one in chosen)} bytes. */")
    print("SECTIONS {\n  .text.first : {")
    for one in chosen:
        short = DIGEST.sub("17h*", one)
        is_only = alike[DIGEST.sub("", one)] == 1
        print(f"    *(.text.{short if is_only else one.partition('.llvm.')[0] + '*'})")
    print("  }\n}\nINSERT BEFORE .text;")


def section_bytes(program, wanted):
    """The size of a section of a 64-bit ELF file; 0: it has none of that name."""
    file = pathlib.Path(program).read_bytes()
    (headers_at,) = struct.unpack_from("<Q", file, 0x28)
    size, count, names_no = struct.unpack_from("<HHH", file, 0x3A)
    header = lambda no: struct.unpack_from("<IIQQQQ", file, headers_at + no * size)
    names_at = header(names_no)[4]
    for no in range(count):
        name_at, _, _, _, _, section = header(no)
        start = names_at + name_at
        if file[start : file.index(b"\0", start)] == wanted.encode():
            return section
    return 0


def check(program):
    wanted = int(re.search(r"They are (\d+) bytes", SCRIPT.read_text()).group(1))
    found = section_bytes(program, ".text.first")
    share = f"{found / 1e6:.1f} of {wanted / 1e6:.1f} MB of code that runs lie in front"
    if found < wanted * (1 - MISSING_MAX):
        print(f"  {share}: cross/order.ld knows an older build, which costs memory and time; `make order` finds the order anew")
    else:
        print(f"  {share}")


{"write": write, "check": check}[sys.argv[1]](*sys.argv[2:])
