"""The fake of the tests as a process, for scripts: `with Fake(SERVE, "in-project") as fake: fake.job("rotate")`."""
import pathlib
import shlex
import subprocess
import tempfile
import time
import urllib.request


class Fake:
    def __init__(self, serve, scenario):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.process = subprocess.Popen([serve, scenario, str(self.folder)])
        control = self.folder / "control"
        while not control.exists():
            if self.process.poll() is not None:
                raise SystemExit("the fake did not start")
            time.sleep(0.1)
        self.address = control.read_text().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)

    def ask(self, path):
        with urllib.request.urlopen(self.address + path) as reply:
            return reply.read().decode()

    def job(self, name):
        """The environment of a new job."""
        words = shlex.split(self.ask(f"/job?name={name}&pipeline={name}"))
        return dict(word.split("=", 1) for word in words if word != "export")

    def end(self, env, code=0):
        self.ask(f"/end?job={env['CI_JOB_ID']}&exit={code}")
