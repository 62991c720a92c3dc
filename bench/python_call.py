#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python figures: a call of the MLP against the aoti_load_package callable in the same process, and a package's metadata from a
fresh process and from a warm one. Medians of alternating blocks.

usage: python_call.py BUILD     (PYTHON of a virtual environment with torch 2.13.0)
"""
import os
import statistics
import subprocess
import sys
import time

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
PACKAGES = os.path.join(BUILD, "python")
sys.path.insert(0, PACKAGES)
MLP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "mlp", "model.pt2")


def goal(what, value, limit):
    print("  %-68s %8.3fx  (goal: at most %gx)%s" % (what, value, limit, "" if value <= limit else "  MISSED"), flush=True)


def blocks(functions, calls, rounds):
    """Median microseconds of each function, and of each one's ratio to the first."""
    rows = []
    for f in functions.values():
        f()
    for _ in range(rounds):
        row = []
        for f in functions.values():
            began = time.perf_counter()
            for _ in range(calls):
                f()
            row.append((time.perf_counter() - began) / calls * 1e6)
        rows.append(row)
    return {name: (statistics.median(r[i] for r in rows), statistics.median(r[i] / r[0] for r in rows))
            for i, name in enumerate(functions)}


def fresh(code, rounds):
    """Median milliseconds of a new interpreter that runs code."""
    env = dict(os.environ, PYTHONPATH=PACKAGES)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=env, check=True, stderr=subprocess.DEVNULL)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def calls():
    import logging

    import torch
    import torch._inductor

    import pt2box
    from pt2box import torch_compat
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    x = torch.randn(4, 64)
    n = x.numpy()
    theirs = torch._inductor.aoti_load_package(MLP)
    ours, compat = pt2box.load(MLP), torch_compat.aoti_load_package(MLP)
    r = blocks({"aoti_load_package callable": lambda: theirs(x), "pt2box, numpy": lambda: ours(n), "pt2box, torch": lambda: ours(x),
                "pt2box.torch_compat": lambda: compat(x)}, 2000, 21)
    for name, (us, _) in r.items():
        print("  %-30s %6.1f us" % (name, us))
    for name in list(r)[1:]:
        goal("Python call of the MLP, %s, to the aoti_load_package callable" % name, r[name][1], 0.8)
    loader = torch._C._aoti.AOTIModelPackageLoader
    r = blocks({"PyTorch": lambda: loader.load_metadata_from_package(MLP, "model"), "pt2box": lambda: pt2box.load_metadata(MLP)}, 20, 9)
    print("  metadata, warm process: PyTorch %.2f ms, pt2box %.2f ms" % (r["PyTorch"][0] / 1e3, r["pt2box"][0] / 1e3))
    goal("metadata in a warm process", r["pt2box"][1], 2)
    big = torch.rand(300, 1000)
    copied, mapped = pt2box.load(MLP.replace("mlp", "omp2")), pt2box.load(MLP.replace("mlp", "omp2"), outputs="tensor")
    r = blocks({"readonly": lambda: mapped.run([big]), "copied": lambda: copied.run([big])}, 50, 9)
    print("  results of 1.2 MB to torch: copied %.0f us, left where they are %.0f us" % (r["copied"][0], r["readonly"][0]))


def metadata():
    start = fresh("pass", 15)
    ours = fresh("import pt2box; pt2box.load_metadata(%r)" % MLP, 15)
    theirs = fresh("import torch; torch._C._aoti.AOTIModelPackageLoader.load_metadata_from_package(%r, 'model')" % MLP, 3)
    print("  metadata from a fresh process: PyTorch %.0f ms, pt2box %.1f ms; of both the bare interpreter is %.1f ms" %
          (theirs, ours, start))
    goal("metadata from a fresh process", ours / theirs, 0.01)
    goal("the same, the bare interpreter's start not counted", (ours - start) / (theirs - start), 0.01)


print("From Python:")
calls()
metadata()
