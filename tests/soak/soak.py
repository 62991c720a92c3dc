#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make soak T=MINUTES`: one broker, several users, all kinds of packages, and everything but the broker killed at random.

Clients (one process each; as root of two users, where the tree can be read by others) load fixtures, run them and compare every output with what PyTorch
computed, change constants, load hostile packages. The driver kills workers, templates, wardens, intakes and clients by
SIGKILL or SIGSEGV. What may fail is a run or a load, with a status that tells of a death; a wrong value, another status, or a
client that hangs ends the soak. At the end the broker's descriptors, memory and processes, /dev/shm and the broker's control groups
must be what they were before. One line a minute; the seed is printed, and --seed repeats the choices.
"""
import argparse
import collections
import glob
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "python"))
BUILD = os.path.abspath(os.environ.get("B", "build"))

UIDS = [61100, 61200]
CLIENTS = 4
FIXTURES = ["mlp", "lstm", "gpt2", "vit", "attn", "sorts", "convs", "nested", "extconst", "blobconst", "linalg", "uniques", "f16"]
HOSTILE = {"segfault": "MODEL_CRASHED", "abort": "MODEL_CRASHED", "exit7": "MODEL_EXITED", "socket_tcp": "MODEL_KILLED",
           "execve": "MODEL_KILLED", "loop": "MODEL_TIMEOUT", "fork_libc": "MODEL_KILLED"}
# What the death of a process may look like to who waits for it.
DEATHS = {"MODEL_CRASHED", "MODEL_EXITED", "STATE_LOST", "MODEL_PROTOCOL", "MODEL_TIMEOUT", "INTERNAL", "CANCELLED"}
SLACK_RSS_KB = 8192


# ---- one client --------------------------------------------------------------------------------------------------------

class Client:
    def __init__(self, seed):
        from harness import Fixture, TestCase, hostile, np, pt2box
        self.np, self.pt2box, self.hostile, self.Fixture = np, pt2box, hostile, Fixture
        self.random, self.case = random.Random(seed), TestCase()
        self.counts = collections.Counter()
        self.stop = False
        signal.signal(signal.SIGTERM, self.on_term)

    def on_term(self, *_):
        self.stop = True

    def tell(self):
        print(json.dumps(self.counts), flush=True)
        self.counts.clear()

    def checked(self, f):
        """f(), whose failure by somebody's death is counted."""
        try:
            return f()
        except self.pt2box.Error as e:
            if e.status not in DEATHS and "intake died" not in str(e):
                raise
            self.counts["deaths"] += 1
            return None

    def compare(self, got, want, f, what):
        if got is None:
            return
        self.case.assert_close(got, want, f.meta, what)
        self.counts["runs"] += 1

    def fixture(self):
        f = self.Fixture(self.random.choice(FIXTURES))
        cases = list(f.cases())
        m = self.checked(lambda: f.load(runners=self.random.randint(1, 3), run_deadline=60, retries=self.random.randint(0, 2)))
        if m is None:
            return
        with m:
            for _ in range(self.random.randint(1, 60)):
                if self.stop:
                    return
                inputs, want = self.random.choice(cases)
                self.compare(self.checked(lambda: m.run(inputs)), want, f, f.name)

    def constants(self):
        """Old or new, never a mixture, and what the broker said came into force."""
        f = self.Fixture("mlp")
        inputs, old = next(f.cases())
        new = f.arrays("out_full.npz", "out", f.about["dtypes_out"])
        m = self.checked(lambda: f.load(runners=2, run_deadline=60))
        if m is None:
            return
        with m:
            state = "old"
            for _ in range(self.random.randint(1, 20)):
                if self.stop:
                    return
                if self.random.random() < .2 and state == "old":
                    state = "new" if self.checked(lambda: m.load_constants(f.file("full.safetensors")) or True) else "either"
                    self.counts["changes"] += state == "new"
                got = self.checked(lambda: m.run(inputs))
                if got is None:
                    continue
                is_old = self.np.allclose(got[0], old[0], f.meta["rtol"], f.meta["atol"])
                self.compare(got, old if state == "old" or state == "either" and is_old else new, f, "mlp, %s constants" % state)

    def attack(self):
        name = self.random.choice(sorted(HOSTILE))
        m = self.checked(lambda: self.pt2box.load(self.hostile(name), run_deadline=0.5))
        if m is None:
            return
        with m:
            for _ in range(self.random.randint(1, 5)):
                try:
                    m.run([self.np.full(16, 666, self.np.float32)])
                    raise AssertionError("%s did nothing" % name)
                except self.pt2box.Error as e:
                    if e.status != HOSTILE[name] and e.status not in DEATHS:
                        raise
                self.counts["attacks"] += 1

    def main(self):
        told = time.monotonic()
        while not self.stop:
            self.random.choice([self.fixture, self.fixture, self.fixture, self.constants, self.attack])()
            if time.monotonic() - told > 1:
                self.tell()
                told = time.monotonic()
        self.tell()
        self.pt2box._close_all()


def open_to_others(path):
    """Another user gets there."""
    while path != "/":
        if not os.stat(path).st_mode & 0o005:
            return False
        path = os.path.dirname(path)
    return True


# ---- the driver --------------------------------------------------------------------------------------------------------

def parents():
    """{pid: (parent, name)} of all processes."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                text = f.read()
        except OSError:
            continue
        name = text[text.index("(") + 1:text.rindex(")")]
        found[int(text.split(" ", 1)[0])] = (int(text[text.rindex(")") + 2:].split()[1]), name)
    return found


def below(pid):
    """(pid, name) of all descendants."""
    table, found, look = parents(), [], [pid]
    while look:
        at = look.pop()
        children = [p for p, (parent, _) in table.items() if parent == at]
        look += children
        found += [(p, table[p][1]) for p in children]
    return found


def rss_kb(pid):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


class Soak:
    def __init__(self, seed, folder):
        self.random, self.folder, self.socket = random.Random(seed), folder, os.path.join(folder, "socket")
        self.counts, self.clients, self.next_seed, self.said_so_far = collections.Counter(), {}, seed, collections.defaultdict(bytes)
        self.failed = None
        self.users = UIDS if os.getuid() == 0 and open_to_others(BUILD) and open_to_others(os.path.realpath(sys.executable)) else [None]
        if self.users == [None]:
            print("soak: all clients are one user")
        self.log = open(os.path.join(folder, "log"), "wb")
        env = dict(os.environ, PT2BOX_TORCH="none")
        self.broker = subprocess.Popen([os.path.join(BUILD, "pt2boxd"), "--socket", self.socket], stderr=self.log, env=env)
        while not os.path.exists(self.socket):
            if self.broker.poll() is not None:
                sys.exit("soak: the broker did not start: see %s" % self.log.name)
            time.sleep(.02)

    def start_client(self):
        self.next_seed += 1
        user = self.users[self.next_seed % len(self.users)]
        env = dict(os.environ, PT2BOX_SOCKET=self.socket, PT2BOX_TORCH="none", PYTHONDONTWRITEBYTECODE="1")
        p = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--client", str(self.next_seed)], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=env, user=user, extra_groups=[] if user else None)
        os.set_blocking(p.stdout.fileno(), False)
        self.clients[p] = time.monotonic()

    def read_clients(self, wait):
        ready, _, _ = select.select([p.stdout for p in self.clients], [], [], wait)
        for p in [p for p in self.clients if p.stdout in ready]:
            self.said_so_far[p] += p.stdout.read() or b""
            *lines, self.said_so_far[p] = self.said_so_far[p].split(b"\n")
            for line in lines:
                self.counts.update(json.loads(line))
                self.clients[p] = time.monotonic()
        for p, heard in list(self.clients.items()):
            if p.poll() is not None:
                del self.clients[p]
                self.said_so_far.pop(p, None)
                if p.returncode not in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGTERM, 0):
                    self.failed = "a client: " + p.stderr.read().decode()
                p.stdout.close()
                p.stderr.close()
            elif time.monotonic() - heard > 150:
                self.failed = "client %d has made no step for 150 s" % p.pid

    def kill_one(self):
        sig = self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV])
        if self.random.random() < .05 and self.clients:
            victim, name = self.random.choice(sorted(p.pid for p in self.clients)), "client"
        else:
            found = [(p, n) for p, n in below(self.broker.pid) if not n.startswith("pt2boxd")]
            if not found:
                return
            victim, name = self.random.choice(found)
        try:
            os.kill(victim, sig)
            self.counts["killed " + name] += 1
        except OSError:
            pass

    def groups(self):
        """Control groups of this broker's spawner."""
        spawners = {"pt2box-%d" % p for p, n in below(self.broker.pid) if n.startswith("pt2boxd")}
        return sum(len(folders) for at, folders, _ in os.walk("/sys/fs/cgroup") if spawners & set(at.split("/")))

    def state(self):
        return {"descriptors": len(os.listdir("/proc/%d/fd" % self.broker.pid)), "processes": len(below(self.broker.pid)),
                "rss_kb": rss_kb(self.broker.pid), "shm": sorted(os.listdir("/dev/shm")),
                "cgroups": self.groups()}

    def quiet(self):
        """The state once everything that was asked for has ended."""
        until, last = time.monotonic() + 30, None
        while time.monotonic() < until:
            now = self.state()
            if last and {k: v for k, v in now.items() if k != "rss_kb"} == {k: v for k, v in last.items() if k != "rss_kb"} and now["processes"] <= 1:
                return now
            last = now
            time.sleep(1)
        return self.state()

    def stop_clients(self):
        for p in self.clients:
            p.terminate()
        until = time.monotonic() + 150
        while self.clients and time.monotonic() < until and not self.failed:
            self.read_clients(.2)
        for p in list(self.clients):
            p.kill()
            p.wait()

    def serve(self, seconds, kills):
        """False: something is wrong."""
        began = told = time.monotonic()
        while time.monotonic() - began < seconds and not self.failed:
            while len(self.clients) < CLIENTS:
                self.start_client()
            self.read_clients(.05)
            if self.broker.poll() is not None:
                self.failed = "the broker has ended with %d: see %s" % (self.broker.returncode, self.log.name)
            elif kills and self.random.random() < .3:
                self.kill_one()
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print("soak: %4.1f min, %s" % ((told - began) / 60, self.said()), flush=True)
        self.stop_clients()
        return not self.failed

    def said(self):
        kills = sum(n for k, n in self.counts.items() if k.startswith("killed"))
        return "%d runs right, %d changes, %d attacks, %d killed, %d runs or loads that died; broker %d descriptors, %d KiB" % (
            self.counts["runs"], self.counts["changes"], self.counts["attacks"], kills, self.counts["deaths"],
            len(os.listdir("/proc/%d/fd" % self.broker.pid)), rss_kb(self.broker.pid))

    def main(self, minutes):
        self.serve(5, False)  # what stays once anything was served
        before = self.quiet()
        if not self.failed:
            self.serve(minutes * 60, True)
        if not self.failed and not (self.counts["runs"] and self.counts["attacks"] and any(k.startswith("killed") for k in self.counts)):
            self.failed = "nothing was tested"
        after = self.quiet() if self.broker.poll() is None else {}
        if not self.failed:
            print("soak: " + self.said())
            for name, count in sorted(self.counts.items()):
                if name.startswith("killed"):
                    print("soak: %s: %d" % (name, count))
            for key, was in before.items():
                now = after[key]
                print("soak: %s before %s, after %s" % (key, was, now))
                if now > was + SLACK_RSS_KB if key == "rss_kb" else now != was:
                    self.failed = "%s did not return to what they were" % key
        if self.broker.poll() is None:
            self.broker.terminate()
            self.broker.wait()
        if not self.failed and os.path.exists(self.socket):
            self.failed = "the broker left its socket"
        if self.failed:
            print("soak: FAILED: " + self.failed, flush=True)
        return 1 if self.failed else 0


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--minutes", type=float, default=30)
    a.add_argument("--seed", type=int, default=None)
    a.add_argument("--client", type=int, help=argparse.SUPPRESS)
    o = a.parse_args()
    if o.client is not None:
        Client(o.client).main()
        return 0
    seed = o.seed if o.seed is not None else random.randrange(1 << 30)
    print("soak: %g minutes, seed %d" % (o.minutes, seed), flush=True)
    with tempfile.TemporaryDirectory(prefix="pt2box-soak-") as folder:
        os.chmod(folder, 0o755)
        soak = Soak(seed, folder)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            result = soak.main(o.minutes)
        finally:
            for p in [*soak.clients, soak.broker]:
                if p.poll() is None:
                    p.terminate()
                    p.wait()
        if result:
            soak.log.flush()
            with open(soak.log.name, errors="replace") as f:
                print("".join(f.readlines()[-20:]), end="")
        return result


if __name__ == "__main__":
    sys.exit(main())
