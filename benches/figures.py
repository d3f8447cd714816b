#!/usr/bin/env python3
"""Measures the figures of docs/reference.md: binary size, and CPU, peak memory and calls of a run that finds nothing due and of a rotation.

CPU time and memory come from the kernel (wait4); the calls from the program's report. The fake runs in a process of its own.
Usage: benches/figures.py PROGRAM SERVE
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / ".ci"))
from fake import Fake

PROGRAM, SERVE = sys.argv[1:3]
RUNS = 9
REPORT = pathlib.Path(tempfile.mkdtemp()) / "report.json"


# A process inherits the peak memory of the one that starts it, so the starter is as small as possible.
STARTER = """
import posix, sys
quiet = [(posix.POSIX_SPAWN_OPEN, stream, '/dev/null', posix.O_WRONLY, 0) for stream in (1, 2)]
_, status, usage = posix.wait4(posix.posix_spawn(sys.argv[1], sys.argv[1:], posix.environ, file_actions=quiet), 0)
print(status, (usage[0] + usage[1]) * 1000, usage[2] / 1024)
"""


def spawn(arguments, env):
    """CPU milliseconds and peak memory in MB of one run."""
    started = [sys.executable, "-I", "-S", "-c", STARTER, PROGRAM, *arguments]
    status, cpu, memory = subprocess.run(started, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if status != "0":
        sys.exit(f"figures: exit status {status}")
    return float(cpu), float(memory)


def run(fake, **more):
    env = fake.job("figures")
    roots = {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
    cpu, memory = spawn([], {"PATH": os.environ["PATH"], **roots, **env, "ROTATOR_REPORT": str(REPORT), **more})
    fake.end(env)
    return cpu, memory, json.loads(REPORT.read_text())["calls"]


def main():
    with Fake(SERVE, "in-project") as fake:
        calm = [run(fake, ROTATOR_ROTATE_AFTER="80d", ROTATOR_AWS_ID_TOKEN="") for _ in range(RUNS)]
    with Fake(SERVE, "central") as fake:
        role = {"ROTATOR_IAM_USER": "svc-shop", "ROTATOR_AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/rotator-one"}
        rotation = run(fake, ROTATOR_TARGETS="project:42@production", ROTATOR_OVERLAP="0s", ROTATOR_GRACE_PERIOD="0s", **role)
    bare = statistics.median(spawn(["--version"], {})[0] for _ in range(RUNS))
    cpu, memory = statistics.median(one[0] for one in calm), max(one[1] for one in calm)
    print(f"figures: binary {os.path.getsize(PROGRAM) / 1e6:.1f} MB")
    print(f"figures: nothing due, self mode: {cpu:.0f} ms of CPU (median of {RUNS}; {cpu / bare:.1f} times a bare start), {memory:.1f} MB at its peak, calls {calm[0][2]}")
    print(f"figures: a whole rotation, role mode: {rotation[0]:.0f} ms of CPU, {rotation[1]:.1f} MB at its peak, calls {rotation[2]}")


main()
