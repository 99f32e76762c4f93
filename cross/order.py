"""Writes the linker script that lays functions out by how often they were called.   order.py PROGRAM CALLGRIND_FILE..."""

import collections
import re
import subprocess
import sys

# What the compiler appends to a name: a digest of the crates that it was built with, which changes with each of them. The
# standard library's names are of another kind and hold for one version of the compiler.
DIGEST = re.compile(r"17h[0-9a-f]{16}E(\.llvm\.\d+)?$")


def ran(path, calls, order):
    """Counts the calls of each function, and notes the functions in the order in which the file has them."""
    names = {}

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


def main(program, *paths):
    symbols = subprocess.run(["nm", "--defined-only", program], check=True, capture_output=True, text=True).stdout
    there = {line.split()[-1] for line in symbols.splitlines()}
    alike = collections.Counter(DIGEST.sub("", symbol) for symbol in there)
    calls, order = collections.Counter(), {}
    for path in paths:
        ran(path, calls, order)
    # Who is called for each request comes first, by number: the bench asks some 1,500 times. Who ran less, at the start
    # mostly, follows as callgrind has it.
    often = sorted((one for one in order if calls[one] >= 150), key=lambda one: -calls[one])
    print("/* What the static file is laid out by: functions in the order of how often they are called, then what ran at all,")
    print("   as seen under callgrind. Written by cross/order.sh (docs/decisions/0045). A name that several instances of a")
    print("   generic function share stands with its digest; others do without, so that they outlive a change of a crate. */")
    print("SECTIONS {\n  .text.first : {")
    for one in dict.fromkeys(often + list(order)):
        if one not in there:
            continue
        short = DIGEST.sub("17h*", one)
        is_only = alike[DIGEST.sub("", one)] == 1
        print(f"    *(.text.{short if is_only else one.partition('.llvm.')[0] + '*'})")
    print("  }\n}\nINSERT BEFORE .text;")


main(*sys.argv[1:])
