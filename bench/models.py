# SPDX-License-Identifier: Apache-2.0
"""Whole models for `make bench`: the time of a call at one and two threads, and the memory of a worker, beside libtorch.

Both sides run at the same time and in turn, a few calls each, and a figure is the median of the ratios of such pairs, so
that a machine that others use too disturbs both alike. The second figure, CPU time of all threads of the worker and of the
libtorch program, is what remains when somebody takes the CPU away; with two threads it has the waiting of idle threads in it.
"""
import glob
import json
import math
import os
import statistics
import subprocess

NAMES = ("resnet18", "resnet18_b8", "mobilenet", "vit", "bert", "bert_bf16", "gpt2", "lstm", "lstm_b8")
GOAL_MEAN, GOAL_EACH, GOAL_MEMORY = 0.9, 1.05, 1.2


def cpu_ns(pid):
    """Nanoseconds that all threads of a process have run."""
    total = 0
    for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
        try:
            with open(path) as f:
                total += int(f.read().split()[0])
        except OSError:
            pass
    return total


def boost(pids):
    """Most of the CPU, for both sides alike: each process of ours is a session, and gets the share of one."""
    for pid in pids:
        for path, value in (("/proc/%d/autogroup" % pid, "-20"),):
            with open(path, "w") as f:
                f.write(value)
        for task in os.listdir("/proc/%d/task" % pid):
            os.setpriority(os.PRIO_PROCESS, int(task), -15)


def worker_pid(us):
    return [w["pid"] for m in json.loads(us.ask("ps"))["models"] for w in m["workers"] if w["pid"]][0]


def resident(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return [int(line.split()[1]) * 1024 for line in f if line.startswith("Rss")][0]


def quartiles(v):
    q = statistics.quantiles(v, n=4) if len(v) > 1 else [v[0]] * 3
    return q[0], q[2]


class Pair:
    """One model on both sides, called in turn."""

    def __init__(self, bench, pkg, threads):
        self.us, self.them = bench.ours(pkg, threads=threads), bench.theirs(pkg, threads=threads)
        self.pids = worker_pid(self.us), self.them.p.pid
        if bench.a.boost:
            boost(self.pids + (self.us.p.pid,))

    def once(self, calls):
        row = []
        for pid, program, word in ((self.pids[0], self.us, "run"), (self.pids[1], self.them, "loader")):
            before = cpu_ns(pid)
            wall = int(program.ask(word, calls))
            row += [wall / 1e6, (cpu_ns(pid) - before) / calls / 1e6]
        return row

    def close(self):
        self.us.close()
        self.them.close()


def time_one(bench, pkg, threads):
    """Ratio of the times, ours to theirs; prints the line."""
    pair = Pair(bench, pkg, threads)
    first = max(pair.once(1)[::2])
    for _ in range(5):
        if first > 200:
            break
        first = min(first, max(pair.once(2)[::2]))
    # Turns of about 40 ms for about 3 s; of models that are slow, 7 at least.
    calls = max(1, min(2000, int(40 / max(first, 0.001))))
    turns = 5 if bench.a.quick else max(7, min(60, int(3000 / (calls * first))))
    rows = [pair.once(calls) for _ in range(turns)]
    pair.close()
    med = [statistics.median(r[i] for r in rows) for i in range(4)]
    ratios = [r[0] / r[2] for r in rows]
    ratio, cpu = statistics.median(ratios), statistics.median(r[1] / r[3] for r in rows)
    print("  %-14s %d thread%s pt2box %9.3f ms, libtorch %9.3f ms, ratio %.3f (quartiles %.3f to %.3f), CPU time %.3f  (%d turns of %d)" % (
        pkg.name, threads, "s"[:threads > 1], med[0], med[2], ratio, *quartiles(ratios), cpu, turns, calls), flush=True)
    return ratio


def times(bench, packages):
    """packages(threads) gives the models compiled for that many."""
    for threads in (1, 2) if bench.two else (1,):
        print("Whole models, %d thread%s, one call through the sandbox:" % (threads, "s"[:threads > 1]))
        models = packages(threads)
        if not models:
            continue
        ratios = [(time_one(bench, pkg, threads), pkg.name) for pkg in models]
        bench.goal("geometric mean of the %d, %d thread%s" % (len(ratios), threads, "s"[:threads > 1]),
                   math.exp(sum(math.log(r) for r, _ in ratios) / len(ratios)), GOAL_MEAN)
        bench.goal("the largest of them, %s" % max(ratios)[1], max(ratios)[0], GOAL_EACH)


def constants_bytes(bench, pkg):
    text = subprocess.run([os.path.join(bench.a.build, "pt2box"), "inspect", "--json", pkg.path], check=True,
                          capture_output=True, text=True).stdout
    return json.loads(text)["constants"]["bytes"]


def memory(bench, models):
    print("Memory of a worker: resident, with all that it shares; beside it constants and the most that libtorch's allocator held in a run:")
    mib = 1024.0 * 1024
    worst = (0, "")
    for pkg in models:
        us, them = bench.ours(pkg), bench.theirs(pkg)
        us.ask("run", 8)
        try:
            rss = resident(worker_pid(us))
        except OSError:
            print("  not readable: run as root")
            return
        peak, constants = int(them.ask("peak", 1)), constants_bytes(bench, pkg)
        us.close()
        them.close()
        ratio = rss / (constants + peak)
        print("  %-14s %.1f MiB, constants %.1f + activations %.1f MiB, ratio %.3f" % (
            pkg.name, rss / mib, constants / mib, peak / mib, ratio), flush=True)
        worst = max(worst, (ratio, pkg.name))
    bench.goal("a worker's memory / (constants + activations), the largest: %s" % worst[1], worst[0], GOAL_MEMORY)
