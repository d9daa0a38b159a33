#!/usr/bin/env python3
"""A server whose engine stands still in the middle of a step: metrics and health answer all the same, and say so.

    tests/deploy/stuck.py target/release/dept

The engine's thread alone is stopped, by ptrace (Linux; the machine must allow it for one's own processes).
"""
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import threading

from asking import ROOT, ask, free_port, until

ATTACH, DETACH, EVERY_THREAD = 16, 17, 0x40000000
LONG = {"prompt": [100, 200, 300], "max_tokens": 500, "min_tokens": 500}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def expect(what, holds):
    if not holds:
        sys.exit(f"BAD {what}")
    print(f"ok  {what}")


def trace(request, thread):
    if libc.ptrace(request, thread, None, None) != 0:
        sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())}")


def thread_named(process, name):
    tasks = pathlib.Path(f"/proc/{process}/task").iterdir()
    return next(int(task.name) for task in tasks if (task / "comm").read_text().strip() == name)


def age(admin):
    """Seconds since the engine's step began, by the metrics."""
    status, text = ask(f"http://{admin}/metrics")
    found = re.search(r"^dept_engine_step_age_seconds (\S+)$", text, re.MULTILINE)
    return float(found[1]) if status == 200 and found else 0.0


def main():
    http, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    flags = ["--http", http, "--grpc", "off", "--admin", admin, "--stuck-after", "2s", "--weights-cache", "off", "--log", "error"]
    server = subprocess.Popen([pathlib.Path(sys.argv[1]).resolve(), "serve", *flags], cwd=ROOT)
    try:
        until("it is ready", lambda: ask(f"http://{admin}/health/ready")[0] == 200)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(ask(f"http://{http}/v1/generate", LONG)))
        asking.start()
        until("the engine is at work", lambda: age(admin) > 0)
        engine = thread_named(server.pid, "engine")
        trace(ATTACH, engine)
        os.waitpid(engine, EVERY_THREAD)
        until("a step's age grows", lambda: age(admin) > 1)
        expect("metrics answer while a step stands still", age(admin) > 1)
        until("it is taken for stuck", lambda: ask(f"http://{admin}/health/live")[0] == 503)
        status, text = ask(f"http://{admin}/health/live")
        expect("and so does liveness: 503, why, and what to do", status == 503 and "--stuck-after" in text)
        trace(DETACH, engine)
        asking.join()
        expect("the step goes on and its request is answered", answers[0][0] == 200)
        expect("it is alive again", ask(f"http://{admin}/health/live")[0] == 200)
    finally:
        server.terminate()
    expect("it ends in good order", server.wait() == 0)


if __name__ == "__main__":
    main()
