#!/usr/bin/env python3
"""Measures what the README states: binary size, and CPU, peak memory and calls of a run that finds nothing due and of a rotation.

CPU time and memory come from the kernel (wait4); the calls from the program's report. The world runs in a process of its own.
Usage: figures.py PROGRAM SANDBOX
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAM, SANDBOX = sys.argv[1:3]
RUNS = 9


def run(env, report):
    """CPU milliseconds, peak memory in MB and the report of one run."""
    child = os.posix_spawn(PROGRAM, [PROGRAM], env, file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"figures: exit status {status}")
    return (usage.ru_utime + usage.ru_stime) * 1000, usage.ru_maxrss / 1024, json.loads(report.read_text())


def main():
    folder = pathlib.Path(tempfile.mkdtemp())
    sandbox = subprocess.Popen([SANDBOX, "serve", str(folder)])
    try:
        while not (folder / "state.json").exists():
            time.sleep(0.1)
        given = dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())
        given = {name: value.strip("'") for name, value in given.items()}
        report = folder / "report.json"
        common = {
            "PATH": os.environ["PATH"], "CI_API_V4_URL": given["CI_API_V4_URL"], "ROTATOR_GITLAB_TOKEN": given["ROTATOR_GITLAB_TOKEN"],
            "AWS_ENDPOINT_URL": given["AWS_ENDPOINT_URL"], "ROTATOR_REPORT": str(report), "SSL_CERT_FILE": os.environ.get("SSL_CERT_FILE", ""),
        }
        own = {**common, "ROTATOR_TARGETS": "project:101", "AWS_ACCESS_KEY_ID": given["ALPHA_KEY_ID"], "AWS_SECRET_ACCESS_KEY": given["ALPHA_SECRET"]}
        calm = [run({**own, "ROTATOR_ROTATE_AFTER": "80d", "ROTATOR_MAX_AGE": "90d"}, report) for _ in range(RUNS)]
        role = {**common, "ROTATOR_TARGETS": "project:103", "ROTATOR_IAM_USER": "gamma", "ROTATOR_AWS_ROLE_ARN": given["ROTATOR_B_ARN"]}
        role |= {"ROTATOR_AWS_ID_TOKEN": given["ID_TOKEN"], "ROTATOR_OVERLAP": "0s", "ROTATOR_GRACE_PERIOD": "0s"}
        rotation = run(role, report)
        bare = []
        for _ in range(RUNS):
            child = os.posix_spawn(PROGRAM, [PROGRAM, "--version"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
            usage = os.wait4(child, 0)[2]
            bare.append((usage.ru_utime + usage.ru_stime) * 1000)
    finally:
        (folder / "stop").touch()
        sandbox.wait(10)
    cpu, memory = statistics.median(one[0] for one in calm), max(one[1] for one in calm)
    print(f"figures: binary {os.path.getsize(PROGRAM) / 1e6:.1f} MB")
    print(f"figures: nothing due, self mode: {cpu:.0f} ms of CPU (median of {RUNS}; {cpu / statistics.median(bare):.1f} times a bare start), {memory:.1f} MB at its peak, calls {calm[0][2]['calls']}")
    print(f"figures: a whole rotation, role mode: {rotation[0]:.0f} ms of CPU, {rotation[1]:.1f} MB at its peak, calls {rotation[2]['calls']}")


main()
