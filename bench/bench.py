#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench`: prints the figures of the README, as ratios to libtorch taken in one run.

The yardstick is bench/torch_host.cc (AOTIModelPackageLoader::run on libtorch, tensors made beforehand, outputs freed);
ours is bench/hot.c. Both are pinned alike: torch_host and the pt2box worker to one CPU, the pt2box client to another, as
its wait is not work. Blocks of calls alternate between the two; a figure is the median of the ratios of the blocks.

Without --torch-host only pt2box's own figures are printed. Standard library only; what needs PyTorch or the Python package
is asked of bench/python_calls.py, a program of its own.
"""
import argparse
import ast
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

import fairness
import models as whole

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DTYPES = {"<f4": "float32", "<i8": "int64"}


def npy(data):
    """(dtype, shape, bytes) of a C-ordered .npy."""
    n = struct.unpack("<H", data[8:10])[0]
    head = ast.literal_eval(data[10:10 + n].decode())
    return DTYPES[head["descr"]], head["shape"], data[10 + n:]


class Package:
    """A package and its inputs, laid out as the two programs take them."""

    def __init__(self, name, path, inputs, folder):
        self.name, self.path, self.specs = name, path, []
        with zipfile.ZipFile(inputs) as z:
            for i, entry in enumerate(z.namelist()):
                dtype, shape, data = npy(z.read(entry))
                raw = os.path.join(folder, "%s.%d.raw" % (name, i))
                with open(raw, "wb") as f:
                    f.write(data)
                self.specs.append("%s:%s:%s" % (dtype, "x".join(map(str, shape)), raw))
        self.so = os.path.join(folder, name + ".so")
        with zipfile.ZipFile(path) as z:
            so = [n for n in z.namelist() if n.endswith(".wrapper.so")][0]
            with open(self.so, "wb") as f:
                f.write(z.read(so))


class Program:
    """One of the programs, obeying lines."""

    def __init__(self, argv, cpu=None, first=True, **kw):
        begin = time.monotonic()
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=(
            (lambda: os.sched_setaffinity(0, {cpu})) if cpu is not None else None), **kw)
        if first and self.p.stdout.readline().strip() != "first":
            sys.exit("bench: %s did not start" % argv[0])
        self.first_ms = (time.monotonic() - begin) * 1e3

    def ask(self, *words):
        self.p.stdin.write(" ".join(map(str, words)) + "\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            sys.exit("bench: a program died")
        return line

    def close(self):
        self.p.stdin.close()
        self.p.wait()


class Bench:
    def __init__(self, a, folder):
        self.a, self.folder = a, folder
        self.cpus = sorted(os.sched_getaffinity(0))
        self.two = len(self.cpus) >= 2
        self.goals = []

    def fixture(self, name, case=""):
        d = os.path.join(TOP, "tests", "fixtures", name)
        return Package(name + case, os.path.join(d, "model.pt2"), os.path.join(d, "in%s.npz" % case), self.folder)

    def ours(self, pkg, runners=1, threads=1, constants=None, beside=None, pinned=True):
        client, worker = (self.cpus[0], self.cpus[1]) if self.two and threads == 1 and pinned else (-1, -1)
        more = (["-k", constants] if constants else []) + (["-b", beside.path] + beside.specs if beside else [])
        return Program([os.path.join(self.a.build, "bench", "hot")] + more + [
            pkg.path, str(runners), str(threads), str(client), str(worker)] + pkg.specs)

    def theirs(self, pkg, threads=1):
        return Program([self.a.torch_host, pkg.path, pkg.so, str(threads)] + pkg.specs,
                       self.cpus[1] if self.two and threads == 1 else None)

    def goal(self, what, value, limit, unit="x"):
        ok = value <= limit
        self.goals.append((what, value, limit, unit, ok))
        print("  %-68s %8.3f%s  (goal: at most %g%s)%s" % (what, value, unit, limit, unit, "" if ok else "  MISSED"),
              flush=True)

    def hot(self, pkg, calls, blocks):
        """Medians of ours, theirs and the raw C ABI in us; median ratios ours/theirs and ours/C ABI."""
        us, them = self.ours(pkg), self.theirs(pkg) if self.a.torch_host else None
        rows = []
        us.ask("run", max(calls // 4, 1))
        if them:
            them.ask("loader", max(calls // 4, 1))
            them.ask("cabi", max(calls // 4, 1))
        for _ in range(blocks):
            row = [int(us.ask("run", calls)) / 1e3]
            if them:
                row += [int(them.ask("loader", calls)) / 1e3, int(them.ask("cabi", calls)) / 1e3]
            rows.append(row)
        us.close()
        if them:
            them.close()
        med = [statistics.median(r[i] for r in rows) for i in range(len(rows[0]))]
        ratio = statistics.median(r[0] / r[1] for r in rows) if them else None
        text = "  %-12s pt2box %.1f us" % (pkg.name, med[0])
        if them:
            text += ", libtorch's loader %.1f us, raw C ABI %.1f us, ratio %.3f, to the C ABI %.3f" % (
                med[1], med[2], ratio, statistics.median(r[0] / r[2] for r in rows))
        print(text + "  (%d blocks of %d calls)" % (blocks, calls), flush=True)
        return med[0], ratio

    def calls(self):
        print("Hot calls through the sandbox, one thread, p50:")
        _, ratio = self.hot(self.fixture("mlp"), 2000 if not self.a.quick else 200, 7)
        if ratio:
            self.goal("MLP 4x64, pt2box / AOTIModelPackageLoader::run", ratio, 1.0)

    def start(self):
        print("Start to first result, private broker, full confinement:")
        pkg, us, them = self.fixture("mlp"), [], []
        for _ in range(7):
            p = self.ours(pkg)
            us.append(p.first_ms)
            p.close()
            if self.a.torch_host:
                p = self.theirs(pkg)
                them.append(p.first_ms)
                p.close()
        line = "  pt2box %.1f ms" % statistics.median(us)
        if them:
            line += ", C++ host with libtorch %.1f ms" % statistics.median(them)
        print(line)
        if them:
            self.goal("start, pt2box / C++ host with libtorch", statistics.median(a / b for a, b in zip(us, them)), 0.2)

    def first64(self):
        print("A package that reads 64 elements of its input:")
        small, large = self.fixture("first64"), self.fixture("first64", "_1")
        n = 4 << 20  # float32: 16 MiB
        raw = os.path.join(self.folder, "first64.16m.raw")
        with open(raw, "wb") as f:
            f.write(b"\0\0\x80?" * n)
        large.specs = ["float32:%d:%s" % (n, raw)]
        small.specs = ["float32:256:%s" % raw]
        a, b = self.ours(small), self.ours(large)
        rows = [(int(a.ask("run", 1000)) / 1e3, int(b.ask("run", 1000)) / 1e3) for _ in range(7)]
        a.close()
        b.close()
        print("  1 KiB %.1f us, 16 MiB %.1f us" % tuple(statistics.median(r[i] for r in rows) for i in (0, 1)))
        self.goal("16 MiB in the lane costs more than 1 KiB by", statistics.median(y - x for x, y in rows), 5.0, " us")

    @staticmethod
    def memory(ps):
        """(bytes without shared memory summed over all processes, bytes of memfds counted once); None: not readable."""
        o = json.loads(ps)
        pids = [o["broker"]["pid"], o["spawner"]["pid"]]
        memfd = 0
        for m in o["models"]:
            memfd += m["memfd_bytes"]
            pids += [m[k]["pid"] for k in ("warden", "template") if k in m]
            pids += [w["pid"] for w in m["workers"] if w["pid"]]
        own = 0
        for pid in pids:
            try:
                with open("/proc/%d/smaps_rollup" % pid) as f:
                    kb = {line.split(":")[0]: int(line.split()[1]) for line in f if line.startswith("Pss")}
            except OSError:
                return None
            own += (kb["Pss"] - kb.get("Pss_Shmem", 0)) * 1024
        return own, memfd

    def total(self, pkg, runners, constants=None):
        p = self.ours(pkg, runners, constants=constants)
        p.ask("run", 50)
        m = self.memory(p.ask("ps"))
        p.close()
        return m

    def workers_memory(self, models):
        print("Memory: PSS of broker, spawner, warden, template and workers without shared memory, plus memfds once:")
        mib = 1024.0 * 1024
        m = {n: self.total(self.fixture("mlp"), n) for n in (1, 2, 4, 8)}
        if None in m.values():
            print("  not readable: run as root")
            return
        for n, (own, fds) in sorted(m.items()):
            print("  MLP, %d worker%s: %.2f + %.2f MiB" % (n, "s"[:n > 1], own / mib, fds / mib))
        self.goal("each further MLP worker", (sum(m[8]) - sum(m[1])) / 7 / mib, 2.0, " MiB")
        for pkg in models:
            if pkg.name == "resnet18":
                one, four = self.total(pkg, 1), self.total(pkg, 4)
                print("  ResNet-18 (47 MB of constants), 1 worker: %.1f + %.1f MiB, 4 workers: %.1f + %.1f MiB" % (
                    one[0] / mib, one[1] / mib, four[0] / mib, four[1] / mib))
                print("    constants lie once in sealed memory; what the runtime packs, it packs once, in the template")
                self.goal("each further ResNet-18 worker (activations; less than its constants)",
                          (sum(four) - sum(one)) / 3 / mib, 47.0, " MiB")

    # ---- Python ----

    def python(self):
        print("Python, one thread:")
        mlp = os.path.join(TOP, "tests", "fixtures", "mlp", "model.pt2")
        env = dict(os.environ, PYTHONPATH=os.path.join(self.a.build, "python"), PYTHONWARNINGS="ignore")
        self.a.torch = subprocess.run([self.a.python, "-c", "import torch"], capture_output=True).returncode == 0
        if subprocess.run([self.a.python, "-c", "import pt2box"], env=env, capture_output=True).returncode != 0:
            print("  %s cannot import pt2box from %s: skipped" % (self.a.python, env["PYTHONPATH"]))
            return
        cpus = [str(c) for c in (self.cpus[:2] if self.two else [-1, -1])]
        p = Program([self.a.python, os.path.join(TOP, "bench", "python_calls.py")] + cpus, first=False, env=env,
                    stderr=subprocess.DEVNULL)
        calls, blocks = (200, 3) if self.a.quick else (2000, 7)
        forms = [("numpy", "numpy arrays"), ("torch", "tensors of torch"), ("compat", "pt2box.torch_compat")]
        call = {f: json.loads(p.ask(f, mlp, calls, blocks)) for f, _ in (forms if self.a.torch else forms[:1])}
        for form, text in forms[:len(call)]:
            self.both("MLP 4x64, one call, " + (text if self.a.torch else "buffers"), call[form],
                      "aoti_load_package's callable", "us")
        large = json.loads(p.ask("large", mlp.replace("mlp", "omp2"), calls // 40, blocks))
        if large["us"]:
            print("  results of 1.2 MB: left where they are %.0f us, copied to torch %.0f us" % (large["us"], large["them"]))
        metadata = json.loads(p.ask("metadata", mlp, calls // 20, blocks))
        p.close()
        fresh = self.fresh_metadata(env, mlp, bool(metadata["ratio"]))
        self.both("load_metadata_from_package, warm", metadata, "PyTorch", "us")
        self.both("load_metadata_from_package, fresh process", fresh, "PyTorch", "ms")
        print("    of that, an interpreter that does nothing: %.1f ms; pt2box inspect --metadata, no Python: %.1f ms" % (
            fresh["empty"], fresh["command"]))
        if metadata["ratio"]:
            for form, text in forms:
                self.goal("Python call of the MLP, %s / aoti_load_package's callable" % text, call[form]["ratio"], 0.8)
            self.goal("metadata in a warm process, pt2box / PyTorch", metadata["ratio"], 2.0)
            self.goal("metadata from a fresh process, pt2box / PyTorch (import torch included)", fresh["ratio"], 0.01)

    @staticmethod
    def both(what, m, who, unit):
        them = ", %s %.1f %s, ratio %.4f" % (who, m["them"], unit, m["ratio"]) if m["ratio"] else ""
        print("  %s: pt2box %.1f %s%s" % (what, m["us"], unit, them), flush=True)

    def fresh_metadata(self, env, path, torch):
        """Milliseconds of whole processes, taken in turn."""
        programs = {
            "us": [self.a.python, "-c", "import pt2box; pt2box.load_metadata(%r)" % path],
            "empty": [self.a.python, "-c", "pass"],
            "command": [os.path.join(self.a.build, "pt2box"), "inspect", "--metadata", path],
            "them": [self.a.python, "-c", "import torch; "
                     "torch._C._aoti.AOTIModelPackageLoader.load_metadata_from_package(%r, 'model')" % path] if torch else None,
        }
        took = {k: [] for k in programs}
        for _ in range(3 if self.a.quick else 7):
            for k, argv in programs.items():
                begin = time.monotonic()
                if argv:
                    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                took[k].append((time.monotonic() - begin) * 1e3)
        m = {k: statistics.median(v) for k, v in took.items()}
        m["ratio"] = statistics.median(a / b for a, b in zip(took["us"], took["them"])) if torch else None
        return m

    # ---- 200 MB of constants ----

    def constants_memory(self, pkg, sets):
        mib = 1024.0 * 1024
        size = os.path.getsize(sets[0])
        m = {n: self.total(pkg, n, sets[0]) for n in (1, 8)}
        mlp = self.total(self.fixture("mlp"), 1)
        print("Memory with %.0f MiB of external constants, counted as above:" % (size / mib))
        if None in m.values() or mlp is None:
            print("  not readable: run as root")
            return
        # The rest of a process is the MLP's: what one worker's family has more is the template's packed copy.
        packed = max(m[1][0] - mlp[0], 0)
        for n in (1, 8):
            print("  %d worker%s: %.1f MiB of processes + %.1f MiB of memfds" % (n, "s"[:n > 1], m[n][0] / mib, m[n][1] / mib))
        print("    of that the packed copy, made once, in the template: %.1f MiB" % (packed / mib))
        self.goal("8 workers without the packed copy / one copy of the constants", (sum(m[8]) - packed) / size, 1.1)
        self.goal("8 workers / 1 worker, packed copy and all", sum(m[8]) / sum(m[1]), 1.1)

    def updates(self, pkg, sets):
        print("Runs while %.0f MiB of constants are replaced, two workers, p50 and p99:" % (
            os.path.getsize(sets[0]) / 1024.0 / 1024))
        p = self.ours(pkg, 2, constants=sets[0], beside=self.fixture("mlp"), pinned=False)
        n, ms = (4, 1000) if self.a.quick else (12, 4000)
        p.ask("tail", ms // 2, 0, "-", "-")
        rows = []
        for _ in range(3):
            alone = [int(w) for w in p.ask("tail", ms, 0, "-", "-").split()]
            during = [int(w) for w in p.ask("tail", 0, n // 2, sets[1], sets[0]).split()]
            rows.append((alone, during))
        p.close()
        def median(i, k):
            return statistics.median(r[i][k] for r in rows) / 1e6

        for name, k in (("the model itself", 1), ("the MLP beside it", 4)):
            print("  %-18s alone %.3f / %.3f ms, during updates %.3f / %.3f ms" % (
                name, median(0, k), median(0, k + 1), median(1, k), median(1, k + 1)))
        print("  an update: %.0f ms" % median(1, 6))
        self.goal("p99 of the model's runs, during updates / alone", statistics.median(b[2] / a[2] for a, b in rows), 2.0)
        self.goal("p99 of the MLP's runs beside it, during updates / alone", statistics.median(b[5] / a[5] for a, b in rows), 2.0)

    def large_constants(self):
        path = os.path.join(self.a.models, "linears") if self.a.models else ""
        sets = [path + ".a.safetensors", path + ".b.safetensors"]
        if not path or not all(os.path.exists(f) for f in sets + [path + ".pt2"]):
            print("200 MB of constants: skipped, bench/make_models.py needs torch 2.13.0 and safetensors to make the package.")
            return
        pkg = Package("linears", path + ".pt2", path + ".npz", self.folder)
        self.constants_memory(pkg, sets)
        self.updates(pkg, sets)

    def inspect(self):
        """A package of every kind that is there: parsed by a fresh confined process, no worker."""
        print("pt2box inspect, whole process:")
        worst = (0, "")
        for pkg in self.packages():
            took = []
            for _ in range(7):
                begin = time.monotonic()
                subprocess.run([os.path.join(self.a.build, "pt2box"), "inspect", pkg.path], check=True, stdout=subprocess.DEVNULL)
                took.append((time.monotonic() - begin) * 1e3)
            worst = max(worst, (statistics.median(took), pkg.name))
            print("  %-14s %.1f ms (%.0f MB)" % (pkg.name, statistics.median(took), os.path.getsize(pkg.path) / 1e6))
        self.goal("pt2box inspect, the slowest: %s" % worst[1], worst[0], 20, " ms")

    def operators(self):
        """Calls of a plugin's operator on 1 KiB, in a process of its own."""
        path = os.path.join(self.a.models, "named") if self.a.models else ""
        if not path or not os.path.exists(path + "100.pt2"):
            print("Operators of a plugin: skipped, bench/make_models.py needs torch 2.13.0 to make the packages.")
            return

        def p50(name, count):
            argv = [os.path.join(self.a.build, "pt2box"), "bench", name + ".pt2", "--input", name + ".npz",
                    "--ops", os.path.join(self.a.build, "bench", "example.so"), "--count", count, "--json"]
            return json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["p50_us"]

        print("Operators of a plugin, 1 KiB, each call:")
        self.goal("(a run with 100 - a run with none) / 100",
                  statistics.median((p50(path + "100", "300") - p50(path + "0", "300")) / 100 for _ in range(5)), 30, " us")
        large = [os.path.join(self.a.models, n) for n in ("large0", "large1")]
        if not all(os.path.exists(n + ".pt2") for n in large):
            return
        them = [self.theirs(Package(os.path.basename(n), n + ".pt2", n + ".npz", self.folder)) for n in large]
        rows = []
        for _ in range(7):
            us = [p50(n, "40") for n in large]
            rows.append((us[1] - us[0], sum(s * int(p.ask("loader", 40)) / 1e3 for s, p in zip((-1, 1), them))))
        for p in them:
            p.close()
        print("  16 MiB: pt2box %.0f us, libtorch %.0f us" % tuple(statistics.median(r[i] for r in rows) for i in (0, 1)))
        self.goal("16 MiB, (a run with one - a run with none), pt2box / libtorch in-process",
                  statistics.median(r[0] for r in rows) / statistics.median(r[1] for r in rows), 1.2)

    def packages(self, threads=1):
        """The whole models that are there, compiled for so many threads; the MLP is too small for more than one."""
        found = [self.fixture("mlp")]
        for name in whole.NAMES:
            path = os.path.join(self.a.models, name + (".t%d" % threads if threads > 1 else ""))
            if self.a.models and os.path.exists(path + ".pt2") and (not self.a.model or name in self.a.model):
                found.append(Package(os.path.basename(path), path + ".pt2", path + ".npz", self.folder))
        return found[1:] if self.a.model and "mlp" not in self.a.model else found

    def models(self):
        if self.a.torch_host:
            whole.times(self, self.packages)

    def fairness(self):
        """One tenant's p99 beside 64 flooding connections of another, and beside one client that never pauses."""
        pkg = os.path.join(TOP, "tests", "fixtures", "mlp", "model.pt2")
        p99 = fairness.measure(self.a.build, pkg, pkg.replace("model.pt2", "in.npz"), self.a.quick)
        if not p99:
            print("fairness: needs root, to be two users")
            return
        print("fairness: a tenant's p99 alone %.1f us, beside one client of another %.1f us, beside 64 %.1f us" % tuple(p99))
        self.goal("p99 of a tenant beside 64 flooding connections / beside one client", p99[2] / p99[1], 2)

    def memories(self):
        if self.a.torch_host:
            whole.memory(self, [p for p in self.packages() if p.name != "mlp"])

    def batch(self):
        n, source = 1000 if self.a.quick else 20000, os.path.join(self.folder, "items")
        print("A batch of %d small files (MLP 4x64, .npy in and out), journalled and durable, all of it with start and end:" % n)
        package = os.path.join(TOP, "tests", "fixtures", "mlp", "model.pt2")
        os.mkdir(source)
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 64), }".ljust(117) + b"\n"
        for i in range(n):
            with open(os.path.join(source, "item%06d.npy" % i), "wb") as f:
                f.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + struct.pack("<256f", *[i % 97 / 97] * 256))
        rows = []
        for turn in range(1 if self.a.quick else 2):
            out, began = os.path.join(self.folder, "out%d" % turn), time.monotonic()
            subprocess.run([os.path.join(self.a.build, "pt2box"), "batch", package, "-i", source, "-o", out], check=True,
                           stderr=subprocess.DEVNULL)
            row = [n / (time.monotonic() - began)]
            if self.a.torch_host:
                row.append(float(subprocess.run([self.a.python, os.path.join(TOP, "bench", "batch_loop.py"), package, source, out + "t"],
                                                check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout))
            rows.append(row)
        print("  pt2box batch %.0f items/s" % statistics.median(r[0] for r in rows), flush=True)
        if self.a.torch_host:
            print("  loop of np.load, aoti_load_package's callable, np.save, without fsync: %.0f items/s" %
                  statistics.median(r[1] for r in rows))
            self.goal("plain loop / pt2box batch, items a second", statistics.median(r[1] / r[0] for r in rows), 1 / 3)

    def run(self):
        if not self.a.torch_host:
            print("No torch 2.13.0 was found: no yardstick, no larger models (pip install torch==2.13.0 transformers safetensors in a"
                  " venv, then make bench PYTHON=VENV/bin/python).")
        if not self.two:
            print("One CPU only: client and worker share it, figures do not mean much.")
        if self.a.only:
            return getattr(self, self.a.only)()
        self.calls()
        self.start()
        self.first64()
        self.workers_memory(self.packages())
        self.python()
        self.large_constants()
        self.operators()
        self.inspect()
        self.fairness()
        self.batch()
        self.models()
        self.memories()
        missed = [g for g in self.goals if not g[4]]
        print("%d of %d goals reached." % (len(self.goals) - len(missed), len(self.goals)))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", required=True)
    p.add_argument("--torch-host", default="")
    p.add_argument("--models", default="")
    p.add_argument("--python", default=sys.executable, help="the interpreter that is measured")
    p.add_argument("--only", default="", help="one part: calls, start, first64, python, large_constants, operators,"
                   " inspect, batch, fairness, models, memories")
    p.add_argument("--model", action="append", help="of the whole models this one (may be repeated)")
    p.add_argument("--boost", action="store_true",
                   help="as root, on a machine that others use: gives both sides of the whole models a higher priority")
    p.add_argument("--quick", action="store_true", help="fewer calls: does it run at all")
    a = p.parse_args()
    a.build = os.path.abspath(a.build)
    os.environ["PT2BOX_LIBEXEC"] = os.path.join(a.build, "libexec")
    with tempfile.TemporaryDirectory() as folder:
        Bench(a, folder).run()


if __name__ == "__main__":
    main()
