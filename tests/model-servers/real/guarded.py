"""A real server and the real sidecar in front of it, as processes, with watchers on both.

Ends what it started, by its process group. Nothing else.
"""

import datetime
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

import clients
import environment
from servers import JSON

STALL_AFTER = 5.0


class Guarded:
    """One server behind one sidecar. `stall_after` in seconds; `more` is added to the file; `record`: a folder."""

    def __init__(self, binary, server, counter, stall_after=STALL_AFTER, more="", record=None):
        self.binary, self.server, self.stall_after = binary, server, stall_after
        # A check of its own where silence alone is to decide, for a preset's counter cannot be taken away.
        self.check = "progress" if counter else "silence"
        self.counter = counter and server.counter
        self.place = environment.ensure(server.name)
        self.directory = tempfile.TemporaryDirectory(prefix="real-")
        names = ("http", "grpc", "metrics", "proxy", "probes", "admin")
        self.ports = {name: clients.free_port() for name in names}
        self.process, self.sidecar, self.starts = None, None, 0
        self.log_path = os.path.join(self.directory.name, "sidecar.log")
        self.report_path = os.path.join(self.directory.name, "hang-report")
        self.config_path = os.path.join(self.directory.name, "probegate.toml")
        with open(self.config_path, "w") as file:
            file.write(self.config(more))
        self.record = os.path.join(record, f"{server.name}-{self.check}") if record else None
        if self.record:
            os.makedirs(record, exist_ok=True)
            shutil.copy(self.config_path, f"{self.record}.toml")
        self.watches = {}
        try:
            self.start_sidecar()
        except BaseException:
            self.end()
            raise

    def config(self, more):
        server, ports = self.server, self.ports
        page = {"same": '"/metrics"', "metrics": f'"http://127.0.0.1:{ports["metrics"]}/metrics"', None: "false"}
        model = f'models = ["{server.model}"]' if server.model else ""
        counter = f", counter = '{self.counter}'" if self.counter else ""
        return f"""
[upstream]
address = "127.0.0.1:{ports["http"]}"
preset = "{server.preset}"
metrics = {page[server.metrics]}
{model}
[listen]
traffic = "127.0.0.1:{ports["proxy"]}"
probes = "127.0.0.1:{ports["probes"]}"
admin = "127.0.0.1:{ports["admin"]}"
[health]
require = ["alive", "{self.check}"]
[checks.{self.check}]
progress = {{ stall_after = "{self.stall_after}s"{counter} }}
[report]
file = "{self.report_path}"
{more}
"""

    # Life.

    def start_sidecar(self):
        self.log = open(self.log_path, "a")
        command = [self.binary, "run", "-c", self.config_path]
        command += ["--record", f"{self.record}.trace"] if self.record else []
        self.sidecar = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 20
        while clients.ask(self.ports["probes"], "GET", "/self")[0] != 200 and time.monotonic() < end:
            time.sleep(0.02)
        self.watches["ready"] = clients.Watch(self.ports["probes"], "/ready", 0.1, 2.0)
        self.watches["health"] = clients.Watch(self.ports["probes"], "/health", 0.1, 2.0)
        # Patient, so that "slow" can be told from "silent".
        for path in (self.server.health, *self.server.also):
            self.watches[path] = clients.Watch(self.ports["http"], path, 0.5, 2.0)

    def start_server(self):
        self.starts += 1
        folder = os.path.join(self.directory.name, f"server-{self.starts}")
        os.mkdir(folder)
        command, variables, directory = self.server.start(self.place, folder, self.ports)
        self.server_log = open(os.path.join(self.directory.name, "server.log"), "a")
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
            stdin=subprocess.DEVNULL,
            stdout=self.server_log,
            stderr=self.server_log,
            start_new_session=True,
        )

    def end_server(self):
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process = None

    def end(self):
        for watch in self.watches.values():
            watch.stop()
        if self.sidecar is not None:
            self.sidecar.kill()
            self.sidecar.wait()
        self.end_server()
        for watch in self.watches.values():
            watch.join(5)
        self.directory.cleanup()

    # The process that does the work.

    def worker(self):
        """Its process id; that of the whole server if it is one process."""
        if self.server.worker is None:
            return self.process.pid
        found = [pid for pid in descendants(self.process.pid) if self.server.worker in command_line(pid)]
        return found[-1] if found else None

    def signal_worker(self, kind):
        pid = self.worker()
        if pid is None:
            raise RuntimeError(f"no process of {self.server.name} matches {self.server.worker}")
        os.kill(pid, kind)
        return time.monotonic()

    # Asking.

    def predict(self, timeout=120.0, body=None):
        body = self.server.body if body is None else body
        return clients.ask(self.ports["proxy"], "POST", self.server.path, body, timeout, JSON)

    def predict_later(self, timeout=120.0, body=None):
        return clients.Later(lambda: self.predict(timeout, body))

    def reason(self, check=None):
        """What the report says of a check; of the one that finds a hang by default."""
        check = check or self.check
        found = [one for one in self.report()["checks"] if one["name"] == check]
        return f"{found[0]['state']}: {found[0]['reason']}" if found else "no such check"

    def backlog(self):
        """For how many seconds more what clients gave up on excuses silence, as the report says."""
        until = self.report()["model"]["busy_until"]
        if until is None:
            return 0.0
        left = datetime.datetime.fromisoformat(until) - datetime.datetime.now(datetime.UTC)
        return max(0.0, left.total_seconds())

    def report(self):
        return json.loads(clients.ask(self.ports["admin"], "GET", "/api/report")[1])

    def turned(self, subject, to, since):
        """The log's lines of a gate or check that turned, oldest first."""
        wall = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=time.monotonic() - since)
        lines = [json.loads(line) for line in self.log_tail(5000).splitlines() if line.startswith("{")]
        of_it = [line for line in lines if line.get("subject") == subject and line.get("to") == to]
        return [line for line in of_it if wall <= datetime.datetime.fromisoformat(line["timestamp"])]

    def own(self, since, until=None):
        """What the server's own endpoints said."""
        paths = (self.server.health, *self.server.also)
        return "; ".join(f"{path} {self.watches[path].said(since, until)}" for path in paths)

    def ours(self, since, until=None):
        return "; ".join(f"/{gate} {self.watches[gate].said(since, until)}" for gate in ("health", "ready"))

    def failures(self, gate, since, until=None):
        return sum(status != 200 for _, status, _ in self.watches[gate].between(since, until))

    def log_tail(self, lines=40):
        return tail(self.log_path, lines)

    def server_log_tail(self, lines=30):
        return tail(os.path.join(self.directory.name, "server.log"), lines)


def tail(path, lines):
    try:
        with open(path, errors="replace") as log:
            return "".join(log.readlines()[-lines:])
    except OSError:
        return ""


def descendants(root):
    """Process ids below `root`, parents before their children."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(name))
            except OSError:
                continue
    below, todo = [], [root]
    while todo:
        children = sorted(parents.get(todo.pop(0), []))
        below += children
        todo += children
    return below


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
