"""Hangs a real FastAPI server in every way and overloads it, behind a real sidecar; prints what was found and when.

    python prove.py [--traces DIRECTORY] PROBEGATE [SCENARIO...]

PROBEGATE is the binary. With `--traces`, what each run's engine was told is kept there, to be replayed in a test.
 Needs fastapi and uvicorn. Uses loopback and free ports, ends what it started.
Exits with 1 if a hang was found late or not at all, or a healthy server was condemned.
"""

import argparse
import concurrent.futures
import datetime
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

STALL_AFTER = 5.0
GOLDEN = """{"cases": [{"name": "x-4", "request": {"method": "POST", "path": "/predict?ms=1", "body": {"x": 4}},
  "expect": {"pointer": "/label", "equals": "even"}}]}"""
# Configuration beyond the usual, and a path to post to before the sidecar starts.
MORE = {
    "failing": ('[ready]\nrequire = ["upstream", "outcomes"]\n[checks.outcomes]\noutcomes = {}\n',),
    "garbage": (
        '[ready]\nrequire = ["upstream", "answers"]\n[checks.answers]\ninterval = "2s"\n'
        'golden = { cases = "golden.json", min_accuracy = 0.8 }\n',
        "/break?wrong_answers=true",
    ),
}
HERE = os.path.dirname(os.path.abspath(__file__))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Pair:
    """The server and the sidecar in front of it."""

    def __init__(self, binary, counter, more="", prepare=None):
        self.server, self.proxy, self.probes, self.admin = (free_port() for _ in range(4))
        self.directory = tempfile.TemporaryDirectory()
        self.report = os.path.join(self.directory.name, "report")
        self.trace = os.path.join(self.directory.name, "trace")
        config = os.path.join(self.directory.name, "probegate.toml")
        counter = ', counter = "predictions_total"' if counter else ""
        with open(config, "w") as file:
            file.write(f"""
[upstream]
address = "127.0.0.1:{self.server}"
[listen]
traffic = "127.0.0.1:{self.proxy}"
probes = "127.0.0.1:{self.probes}"
admin = "127.0.0.1:{self.admin}"
[health]
require = ["progress"]
[checks.progress]
progress = {{ stall_after = "{STALL_AFTER}s"{counter} }}
[checks.upstream]
tcp = "upstream"
on_timeout = "unknown"
[report]
file = "{self.report}"
trace = "{self.trace}"
{more}""")
        with open(os.path.join(self.directory.name, "golden.json"), "w") as file:
            file.write(GOLDEN)
        self.app = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--port", str(self.server), "--log-level", "warning"],
            cwd=HERE,
        )
        if prepare:
            self.await_server()
            self.direct("POST", prepare)
        self.log = open(os.path.join(self.directory.name, "log"), "w+")
        self.sidecar = subprocess.Popen([binary, "run", "-c", config], stderr=self.log, stdout=self.log)
        if not prepare:
            self.wait("/ready", 200, 30)

    def await_server(self):
        for _ in range(200):
            try:
                return self.direct("GET", "/health")
            except OSError:
                time.sleep(0.1)

    def get(self, path):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.probes, timeout=2)
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            return 0, ""

    def wait(self, path, status, within):
        """When `path` answered `status`; None if it did not within so many seconds."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            if self.get(path)[0] == status:
                return time.monotonic()
            time.sleep(0.02)
        return None

    def ask(self, method, path, timeout):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.proxy, timeout=timeout)
            connection.request(method, path)
            response = connection.getresponse()
            response.read()
            return response.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def later(self, method, path, timeout=120):
        threading.Thread(target=self.ask, args=(method, path, timeout), daemon=True).start()

    def reason(self):
        found = re.search(r"\[-\]progress failed: (.*)", self.get("/health?verbose")[1])
        return found.group(1) if found else "no reason"

    def left_over(self):
        """How long the sidecar believes in work that nobody waits for, in seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=2)
        connection.request("GET", "/api/report")
        until = json.loads(connection.getresponse().read())["model"]["busy_until"]
        if until is None:
            return 0
        left = datetime.datetime.fromisoformat(until.replace("Z", "+00:00")) - datetime.datetime.now(datetime.timezone.utc)
        return left.total_seconds()

    def answers(self):
        return all(self.ask("POST", "/predict?ms=10", 2) == 200 for _ in range(5))

    def state(self):
        self.log.flush()
        with open(self.log.name) as log:
            return self.get("/ready?format=json")[1] + "\n" + log.read()

    def direct(self, method, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.server, timeout=2)
        connection.request(method, path)
        try:
            connection.getresponse().read()
        except OSError:
            pass

    def end(self, keep_trace=None):
        for process in (self.sidecar, self.app):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        if keep_trace:
            shutil.copyfile(self.trace, keep_trace)
        self.directory.cleanup()


def hang(pair, hang_it):
    """From the hang to the verdict, in seconds."""
    since = hang_it(pair)
    found = pair.wait("/health", 503, STALL_AFTER + 10)
    if found is None:
        return False, "not found: " + pair.state()
    took = found - since
    deadline = time.monotonic() + 2
    while not os.path.exists(pair.report) and time.monotonic() < deadline:
        time.sleep(0.02)
    report = os.path.exists(pair.report)
    good = STALL_AFTER - 0.3 <= took <= STALL_AFTER + 1 and report
    return good, f"found after {took:.2f} s, report: {report}; {pair.reason()}"


def stopped_in_mid_stream(pair):
    pair.later("GET", "/stream")
    time.sleep(3)
    pair.app.send_signal(signal.SIGSTOP)
    return time.monotonic()


def deadlocked_worker(pair):
    pair.direct("POST", "/deadlock")
    pair.later("POST", "/predict")
    return time.monotonic()


def blocked_event_loop(pair):
    pair.later("GET", "/stream")
    time.sleep(2)
    pair.later("POST", "/block")
    return time.monotonic()


def stalled_after_first_chunk(pair):
    pair.later("GET", "/stream?stall_after=1")
    return time.monotonic()


def idle(pair):
    pair.ask("POST", "/predict", 5)
    pair.app.send_signal(signal.SIGSTOP)
    found = pair.wait("/health", 503, STALL_AFTER * 3)
    return found is None, "not found, as it must be" if found is None else "found without traffic"


def let_go_again(pair):
    pair.later("GET", "/stream")
    time.sleep(2)
    pair.app.send_signal(signal.SIGSTOP)
    time.sleep(STALL_AFTER - 1)
    pair.app.send_signal(signal.SIGCONT)
    found = pair.wait("/health", 503, STALL_AFTER * 2)
    return found is None, "no verdict" if found is None else "condemned: " + pair.reason()


def overload(pair):
    """20 s at three times the capacity, clients that give up after 2 s. Returns when it ended."""
    pair.ask("POST", "/predict", 5)
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(64) as clients:
        for turn in range(120):
            time.sleep(max(0, begun + turn / 6 - time.monotonic()))
            clients.submit(pair.ask, "POST", "/predict", 2)
    return time.monotonic()


def worked_off(pair):
    overload(pair)
    over = time.monotonic()
    answered = []
    threading.Thread(
        target=lambda: answered.append((pair.ask("POST", "/predict", 120), time.monotonic() - over)), daemon=True
    ).start()
    found = pair.wait("/health", 503, 90)
    if found is not None:
        return False, f"condemned after {found - over:.1f} s: {pair.reason()}"
    return bool(answered) and answered[0][0] == 200, f"no verdict; the next request was answered after {answered}"


def stopped_while_working_it_off(pair):
    over = overload(pair)
    pair.later("POST", "/predict", 600)
    pair.app.send_signal(signal.SIGSTOP)
    time.sleep(2)
    bound = pair.left_over()
    found = pair.wait("/health", 503, bound + STALL_AFTER + 10)
    if found is None:
        return False, "not found: " + pair.state()
    said = f"found {found - over:.1f} s after the overload, its bound was {2 + bound:.0f} s; {pair.reason()}"
    return found - over <= 2 + bound + STALL_AFTER + 1.5, said


def failing(pair):
    """Health says 200, every inference fails: out of rotation, and back by a single trial."""
    pair.direct("POST", "/break?failures=true")
    begun, out, back = time.monotonic(), None, None
    mended = None
    with concurrent.futures.ThreadPoolExecutor(32) as clients:
        for _ in range(400):
            clients.submit(pair.ask, "POST", "/predict?ms=10", 2)
            time.sleep(0.1)
            status = pair.get("/ready")[0]
            if out is None and status == 503:
                out = time.monotonic()
            if out and mended is None and time.monotonic() > out + 8:
                pair.direct("POST", "/break")
                mended = time.monotonic()
            if mended and pair.get("/ready/outcomes?verbose")[0] == 200 and status == 200 and pair.answers():
                back = time.monotonic()
                break
    health = pair.get("/health")[0]
    if out is None or back is None:
        return False, f"out: {out}, back: {back}"
    return out - begun < 5 and health == 200, (
        f"out of rotation after {out - begun:.1f} s of traffic, back {back - mended:.1f} s after it was mended; "
        f"/health {health} throughout"
    )


def garbage(pair):
    """Answers 200 with garbage from the start: never ready. Mended: ready."""
    early = pair.wait("/ready", 200, 15)
    reason = re.search(r"\[-\]answers .*", pair.get("/ready?verbose")[1])
    pair.direct("POST", "/break")
    healed = pair.wait("/ready", 200, 15)
    accuracy = re.search(r"^model_accuracy .*", pair.get("/metrics")[1], re.M)
    good = early is None and healed is not None
    return good, f"{reason.group(0) if reason else 'no reason'}; ready when mended: {healed is not None}; {accuracy and accuracy.group(0)}"


SCENARIOS = {
    "failing": failing,
    "garbage": garbage,
    "stopped": lambda pair: hang(pair, stopped_in_mid_stream),
    "deadlocked": lambda pair: hang(pair, deadlocked_worker),
    "blocked": lambda pair: hang(pair, blocked_event_loop),
    "first-chunk": lambda pair: hang(pair, stalled_after_first_chunk),
    "idle": idle,
    "let-go": let_go_again,
    "overload": worked_off,
    "overload-stopped": stopped_while_working_it_off,
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--traces")
    arguments.add_argument("binary", metavar="PROBEGATE")
    arguments.add_argument("names", metavar="SCENARIO", nargs="*")
    arguments = arguments.parse_args()
    bad = 0
    for name in arguments.names or SCENARIOS:
        for counter in (False, True):
            pair = Pair(arguments.binary, counter, *MORE.get(name, ()))
            try:
                good, said = SCENARIOS[name](pair)
            finally:
                file = f"{name}{'-counted' if counter else ''}.trace"
                pair.end(arguments.traces and os.path.join(arguments.traces, file))
            bad += not good
            with_counter = "with a counter" if counter else "without a counter"
            print(f"{'ok ' if good else 'BAD'} {name} {with_counter}: {said}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
