#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The table runtime/shims.def against the headers of the installed PyTorch: every function there has a row, and no row is made up.

usage: check_table.py [BUILD]     Prints the rows that are not native, each with its reason, as docs/OPS.md has them.
"""
import os
import re
import sys

import torch

import _shim

HERE = os.path.dirname(os.path.abspath(__file__))
TABLE = os.path.join(HERE, "../../runtime/shims.def")
PAGE = os.path.join(HERE, "../../docs/OPS.md")
ROW = re.compile(r'^SHIM\((\w+), (NATIVE|PROXIED|ABSENT), "((?:[^"\\]|\\.)*)", "((?:[^"\\]|\\.)*)"\)', re.M)
# A C++ template of shim.h over aoti_torch_dtype_*(), defined there.
INLINE = {"aoti_torch_dtype"}


def declared():
    """Names of functions, by header. Comments and what a macro expands to are not declarations."""
    found = {}
    for header in _shim.HEADERS:
        text = open(os.path.join(_shim.INCLUDE, header)).read()
        text = re.sub(r"/\*.*?\*/", "", re.sub(r"//[^\n]*", "", text), flags=re.S)
        text = re.sub(r"^[ \t]*#.*(?:\\\n.*)*$", "", text, flags=re.M)
        found[header] = set(re.findall(r"\b(aoti_(?:torch|record)\w+)\s*\(", text)) - INLINE
    return found


def main():
    rows = {name: (state, what, note) for name, state, what, note in ROW.findall(open(TABLE).read())}
    lines = len(re.findall(r"^SHIM\(", open(TABLE).read(), re.M))
    page = open(PAGE).read()
    bad = [] if lines == len(rows) else [f"{lines} rows, of which {len(rows)} are understood and different"]
    headers = declared()
    known = set().union(*headers.values())
    for header, names in headers.items():
        states = [rows[n][0] for n in names if n in rows]
        print(f"{header}: {len(names)} functions, {states.count('NATIVE')} native, {states.count('PROXIED')} proxied, "
              f"{states.count('ABSENT')} absent")
        bad += [f"{n} of {header} has no row" for n in sorted(names - set(rows))]
    bad += [f"{n} is in no header of torch {torch.__version__}" for n in sorted(set(rows) - known)]
    reasons = {}
    for name, (state, what, note) in rows.items():
        if state != "NATIVE":
            reasons.setdefault(note, []).append(name)
            bad += [] if note else [f"{name} is not native, and nothing says why"]
            bad += [] if f"| `{name}` | {what} | {note} |" in page else [f"docs/OPS.md does not say of {name}: {note}"]
    for note, names in sorted(reasons.items()):
        print(f"{note} ({len(names)}):")
        for name in sorted(names):
            print(f"    {name}")
    for text in bad:
        print("WRONG " + text)
    print(f"{len(known)} functions, {len(rows)} rows, {len(bad)} wrong")
    return 1 if bad or len(known) < 300 else 0


if __name__ == "__main__":
    sys.exit(main())
