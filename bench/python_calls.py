#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python side of `make bench`: one question a line on standard input, each answered by one line of JSON.

    numpy PACKAGE CALLS BLOCKS      medians of a call in us, ours and PyTorch's callable in this process, blocks of them in turn
    torch, compat                   the same with a tensor of torch, and with pt2box.torch_compat
    large PACKAGE CALLS BLOCKS      results of 1.2 MB as tensors of torch: left where they are, and copied
    metadata PACKAGE CALLS BLOCKS   load_metadata_from_package

Figures of PyTorch are null where torch is not installed. CPUs are as in bench.py: arguments are the client's and the worker's.
"""
import json
import os
import statistics
import sys
import time

CLIENT, WORKER = int(sys.argv[1]), int(sys.argv[2])


def pin(cpu):
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})


pin(WORKER)  # what is started now inherits it
import pt2box  # noqa: E402

try:
    import torch
    import torch._inductor
    torch.set_num_threads(1)
except ImportError:
    torch = None


def block(f, calls):
    clock, took = time.perf_counter_ns, []
    for _ in range(calls):
        begin = clock()
        f()
        took.append(clock() - begin)
    return statistics.median(took) / 1e3


def alternate(ours, theirs, calls, blocks):
    """{us, them: median of the blocks' medians; ratio: median of the blocks' ratios}"""
    rows = []
    for f in (ours, theirs):
        if f:
            block(f, max(calls // 2, 1))
    for _ in range(blocks):
        pin(CLIENT)
        row = [block(ours, calls)]
        pin(WORKER)  # PyTorch works where our worker does
        row.append(block(theirs, calls) if theirs else None)
        rows.append(row)
    us = statistics.median(r[0] for r in rows)
    if not theirs:
        return {"us": us, "them": None, "ratio": None}
    return {"us": us, "them": statistics.median(r[1] for r in rows), "ratio": statistics.median(a / b for a, b in rows)}


def buffers(path, calls, blocks):
    """Without numpy and torch: any buffer will do."""
    import array
    x = memoryview(array.array("f", [0.5] * 256)).cast("B").cast("f", (4, 64))
    model = pt2box.load(path, outputs="tensor")
    return alternate(lambda: model(x), None, calls, blocks)


def call(form, path, calls, blocks):
    if torch is None:
        return buffers(path, calls, blocks)
    from pt2box import torch_compat
    x = torch.randn(4, 64)
    ours = torch_compat.aoti_load_package(path) if form == "compat" else pt2box.load(path)
    theirs, mine = torch._inductor.aoti_load_package(path), x.numpy() if form == "numpy" else x
    with torch.no_grad():
        if not torch.allclose(torch.as_tensor(ours(mine)), theirs(x), 1e-4, 1e-5):
            sys.exit("python_calls: results differ")
        return alternate(lambda: ours(mine), lambda: theirs(x), calls, blocks)


def large(path, calls, blocks):
    if torch is None:
        return {"us": None, "them": None, "ratio": None}
    x = torch.rand(300, 1000)
    copied, mapped = pt2box.load(path), pt2box.load(path, outputs="tensor")
    return alternate(lambda: mapped.run([x]), lambda: copied.run([x]), calls, blocks)


def metadata(path, calls, blocks):
    theirs = torch and torch._C._aoti.AOTIModelPackageLoader.load_metadata_from_package
    if theirs and theirs(path, "model") != pt2box.load_metadata(path, "model"):
        sys.exit("python_calls: metadata differ")
    return alternate(lambda: pt2box.load_metadata(path, "model"), theirs and (lambda: theirs(path, "model")), calls, blocks)


def main():
    for line in sys.stdin:
        what, path, calls, blocks = line.split()
        if what in ("large", "metadata"):
            answer = {"large": large, "metadata": metadata}[what](path, int(calls), int(blocks))
        else:
            answer = call(what, path, int(calls), int(blocks))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
