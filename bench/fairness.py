# SPDX-License-Identifier: Apache-2.0
"""How much one tenant's flood is felt by another: a canary's 99th percentile beside one client that never pauses, and beside 64.

A real service, three users: root starts it, two others are tenants. Each flooding connection has a model and a worker of its own.
"""
import json
import os
import subprocess
import tempfile
import time

CANARY, FLOOD = 20001, 20002
CONFIG = """
tenant canary { uid = %d }
tenant flood { uid = %d }
""" % (CANARY, FLOOD)


def as_user(uid):
    def become():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    return become


def bench(pt2box, socket, package, inputs, uid, runs, **kw):
    """In a session of its own, as a login is."""
    return subprocess.Popen([pt2box, "bench", package, "--input", inputs, "--socket", socket, "-n", str(runs), "--json"],
                            stdout=subprocess.PIPE, preexec_fn=as_user(uid), start_new_session=True, **kw)


def canary(pt2box, socket, package, inputs, runs):
    out = bench(pt2box, socket, package, inputs, CANARY, runs).communicate()[0]
    return json.loads(out)


def beside(n, pt2box, socket, package, inputs, runs):
    """The canary's figures beside @n flooding connections, which all belong to one session, as one user's do."""
    loop = 'for i in $(seq %d); do (while :; do "$@" >/dev/null 2>&1 || sleep 0.1; done) & done; wait' % n
    flood = subprocess.Popen(["sh", "-c", loop, "flood", pt2box, "bench", package, "--input", inputs, "--socket", socket,
                              "-n", "1000000"], preexec_fn=as_user(FLOOD), start_new_session=True)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            ps = json.loads(subprocess.run([pt2box, "ps", "--socket", socket, "--json"], capture_output=True).stdout)
            ready = sum(m["tenant"] == "flood" and m["state"] == "ready" for m in ps["models"])
            if ready >= n:
                break
            time.sleep(0.2)
        if ready < n:
            raise SystemExit("fairness: %d of %d flooding clients are there" % (ready, n))
        return canary(pt2box, socket, package, inputs, runs)
    finally:
        os.killpg(flood.pid, 9)
        flood.wait()


def measure(build, package, inputs, quick):
    """(p99 alone, beside one, beside 64), microseconds; None without root."""
    if os.getuid() != 0:
        return None
    pt2box = os.path.join(build, "pt2box")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        config, socket = os.path.join(folder, "config"), os.path.join(folder, "socket")
        with open(config, "w") as f:
            f.write(CONFIG)
        broker = subprocess.Popen([os.path.join(build, "libexec", "pt2boxd"), "--config", config, "--socket", socket],
                                  stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 10
            while subprocess.run([pt2box, "ps", "--socket", socket], capture_output=True).returncode:
                if time.monotonic() > end:
                    raise SystemExit("fairness: the broker does not answer")
                time.sleep(0.01)
            runs = 2000 if quick else 20000
            one = (pt2box, socket, package, inputs, runs)
            return [f["p99_us"] for f in (canary(*one), beside(1, *one), beside(64, *one))]
        finally:
            broker.terminate()
            broker.wait()
