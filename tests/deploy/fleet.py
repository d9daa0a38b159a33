"""Three servers on one S3 bucket behind HAProxy: what scale_out.py starts, kills and asks."""
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from asking import ROOT, ask, free_port, until

LINE = re.compile(r"^(?P<id>\S+) adapter=(?P<adapter>\S+) replica=(?P<replica>\S+) status=(?P<status>-?\d+) end=(?P<end>\S+) "
                  r"retries=\+?(?P<retries>\d+) ms=(?P<ms>\d+)$", re.M)


class Replica:
    """One server; killed, it comes back at the same address."""

    def __init__(self, dept, work, number, flags):
        self.name, self.address = f"replica{number}", f"127.0.0.1:{free_port()}"
        self.ports, self.log = work / f"{self.name}.json", open(work / f"{self.name}.log", "ab")
        self.command = [dept, "serve", "--adapters=s3://adapters/team", "--adapters-interval=1s", f"--http={self.address}", "--grpc=off",
                        "--admin=127.0.0.1:0", f"--port-file={self.ports}", "--log=warn", *flags]
        self.start()

    def start(self):
        self.ports.unlink(missing_ok=True)
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)

    def ready(self):
        until(f"{self.name}: see {self.log.name}", lambda: self.ports.is_file() or self.process.poll() is not None)
        if self.process.poll() is not None:
            sys.exit(f"{self.name} ended: {pathlib.Path(self.log.name).read_text()}")
        self.admin = json.loads(self.ports.read_text())["admin"]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def counted(self, metric):
        """The sum of a metric's series."""
        text = ask(f"http://{self.admin}/metrics")[1]
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{metric}[{{ ]", line))


class Proxy:
    """HAProxy with the configuration in deploy/, or that with another way to choose."""

    def __init__(self, work, replicas, routing="adapter"):
        self.address, self.log_file = f"127.0.0.1:{free_port()}", work / f"haproxy-{routing}-{time.monotonic_ns()}.log"
        text = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
        if routing == "random":
            text, changed = re.subn(r"(?m)^    balance .*\n    hash-type .*\n(    #.*\n)*    hash-balance-factor .*$", "    balance random(1)", text)
            assert changed == 1
        config = work / f"haproxy-{routing}.cfg"
        config.write_text(text)
        environment = os.environ | {"DEPT_PROXY": self.address, "DEPT_PROXY_SOCKET": str(work / "haproxy.sock")}
        environment |= {f"DEPT_{at}": replica.address for at, replica in enumerate(replicas)}
        self.process = subprocess.Popen(["haproxy", "-db", "-f", config], env=environment, stdout=open(self.log_file, "wb"))
        until("HAProxy", lambda: ask(f"http://{self.address}/health/ready")[0] == 200)

    def lines(self):
        """What it says of the requests that ended."""
        return [match.groupdict() for match in LINE.finditer(self.log_file.read_text())]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def store(moto, work):
    """An S3 server with an empty bucket, and the environment that leads to it."""
    port = free_port()
    os.environ |= {"DEPT_HOME": str(ROOT), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1",
                   "AWS_ENDPOINT": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true"}
    with open(work / "moto.log", "wb") as log:
        process = subprocess.Popen([moto, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
        try:
            until("moto", lambda: ask(f"http://127.0.0.1:{port}/moto-api/")[0] == 200)
            status, body = ask(f"http://127.0.0.1:{port}/adapters", method="PUT")
            if status != 200:
                sys.exit(f"no bucket: {status} {body}")
            yield
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def replicas(dept, work, flags):
    """Three that are ready."""
    started = [Replica(dept, work, number, flags) for number in range(3)]
    try:
        for replica in started:
            replica.ready()
        yield started
    finally:
        for replica in started:
            replica.process.terminate()
        for replica in started:
            replica.process.wait()
