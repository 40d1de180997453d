"""The cluster as the scenes see it: kubectl, the machine's Python in pods, and what the kubelet does, as it does it.

Ends the processes that it started. Nothing else.
"""

import atexit
import json
import os
import shlex
import string
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "../.."))
KUBECTL = shlex.split(os.environ.get("KUBECTL", "kubectl"))
LOAD_IMAGE = shlex.split(os.environ.get("LOAD_IMAGE", ""))
NAMESPACE = os.environ.get("NAMESPACE", "probegate-flagship")
CHART = os.path.join(ROOT, "deploy", "helm", "probegate")
# The container whose probes all this is about.
MODEL = "vllm"


def helm():
    installed = os.path.join(ROOT, "target", "tools", "helm")
    return shlex.split(os.environ.get("HELM", installed if os.access(installed, os.X_OK) else "helm"))


def command(*words):
    return [*KUBECTL, "-n", NAMESPACE, *words]


def kubectl(*words, text=None, check=True):
    done = subprocess.run(command(*words), input=text, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"kubectl {' '.join(words[:4])}: {done.stderr.strip()}")
    return done.stdout


def apply(name, values):
    kubectl("apply", "-f", "-", text=fill(name, values))


def fill(name, values):
    with open(os.path.join(HERE, name)) as file:
        return string.Template(file.read()).substitute(values)


def install_guarded(values):
    """The chart, with values that are given on standard input, for they hold what is this machine's."""
    words = [*helm(), "-n", NAMESPACE, "upgrade", "--install", "guarded", CHART, "-f", "-"]
    done = subprocess.run(words, input=fill("values.yaml", values), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"helm: {done.stderr.strip()}")


def host_mounts(folders):
    """Volumes and mounts that show the node's folders, read-only, where they lie on the node."""
    volumes, mounts = [], []
    for number, folder in enumerate(folders):
        name = f"node-{number}"
        volumes.append({"name": name, "hostPath": {"path": os.path.realpath(folder), "type": "Directory"}})
        mounts.append({"name": name, "mountPath": folder, "readOnly": True})
    return volumes, mounts


def pod(app):
    """The name and address of the one pod of `guarded` or `naive`."""
    label = "app.kubernetes.io/instance=guarded" if app == "guarded" else "app=naive"
    found = json.loads(kubectl("get", "pods", "-l", label, "-o", "json"))["items"]
    found = [item for item in found if "deletionTimestamp" not in item["metadata"]]
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} pods of {app} instead of one")
    return found[0]["metadata"]["name"], found[0]["status"].get("podIP")


class Trigger:
    """A shell in a pod that has found vLLM's EngineCore and waits for a word: a stream has no second to spare."""

    def __init__(self, name, signal):
        script = "pid=$(pgrep -f '[V]LLM::EngineCore') && echo $pid && read go"
        # Not busybox's date, which has no nanoseconds.
        script += f" && kill -{signal} $pid && /usr/bin/date +%s.%N"
        words = command("exec", "-i", name, "-c", MODEL, "--", "/bin/busybox", "sh", "-c", script)
        self.name = name
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if not self.process.stdout.readline().strip().isdigit():
            self.process.wait()
            raise RuntimeError(f"no EngineCore in {name}")

    def fire(self):
        """Sends the signal; when it was sent, by the node's clock."""
        said, _ = self.process.communicate("go\n", timeout=60)
        if self.process.returncode != 0:
            raise RuntimeError(f"EngineCore of {self.name} is gone")
        return float(said)


class Lines(threading.Thread):
    """A process that prints JSON, its objects in order; `take` is given each."""

    def __init__(self, words, take):
        super().__init__(daemon=True)
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        # Whatever ends us ends it; of one that has ended this is no word.
        atexit.register(self.process.kill)
        self.take = take
        self.start()

    def run(self):
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            # Ours are a line each; kubectl's begin and end with a brace at the margin.
            if line[0] in "{}" and line.rstrip().endswith("}"):
                self.take(json.loads("".join(lines)))
                lines = []

    def end(self, grace=5):
        """Closes its input, which ends a client; ends it by force if that does not."""
        try:
            self.process.stdin.close()
            self.process.wait(grace)
        except (subprocess.TimeoutExpired, OSError):
            self.process.terminate()
            self.process.wait()
        self.join()


class Client(Lines):
    """One run of client.py in the client pod; what it said is in `said`."""

    def __init__(self, python, *words):
        self.said = []
        super().__init__(
            command("exec", "-i", "client", "--", python, "/client/client.py", *map(str, words)), self.said.append
        )

    def requests(self):
        return [entry for entry in list(self.said) if "request" in entry]

    def tokens(self):
        return max((entry["tokens"] for entry in list(self.said) if "tokens" in entry), default=0)

    def outcome(self):
        """Of a stream: the word that it ended with, or None while it goes on."""
        words = [entry["stream"] for entry in list(self.said) if entry.get("stream", "at") != "at"]
        return words[-1] if words else None


class Kubelet:
    """What the kubelet says of the pods: readiness and restarts as they change, and its events."""

    def __init__(self):
        self.changes, self.events = [], []
        self.seen, self.known = {}, set()
        self.begun = time.time()
        self.watches = [
            Lines(command("get", "pods", "-w", "-o", "json"), self.take_pod),
            Lines(command("get", "events", "-w", "-o", "json"), self.take_event),
        ]

    def still_sees(self):
        """Raises if a watch has ended: what it would have said is not known, and nothing may be concluded from its silence."""
        if not all(watch.is_alive() for watch in self.watches):
            raise RuntimeError("a watch on the API server has ended: the scene cannot be judged")

    def take_pod(self, pod):
        for pod in pod.get("items", [pod]):
            name = pod["metadata"]["name"]
            status = pod.get("status", {})
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
            model = next((c for c in status.get("containerStatuses", []) if c["name"] == MODEL), {})
            terminated = model.get("state", {}).get("terminated") or model.get("lastState", {}).get("terminated")
            now = {"ready": ready, "restarts": model.get("restartCount", 0), "ended": terminated}
            if self.seen.get(name) != now:
                self.seen[name] = now
                self.changes.append({"at": time.time(), "pod": name, **now})

    def take_event(self, event):
        for event in event.get("items", [event]):
            key = (event["metadata"]["uid"], event.get("count"))
            if key in self.known:
                continue
            self.known.add(key)
            self.events.append(
                {
                    "at": time.time(),
                    "pod": event["involvedObject"].get("name"),
                    "reason": event["reason"],
                    "message": event.get("message", ""),
                }
            )

    def ready(self, pod):
        self.still_sees()
        return self.seen.get(pod, {}).get("ready", False)

    def restarts(self, pod):
        self.still_sees()
        return self.seen.get(pod, {}).get("restarts", 0)

    def event(self, pod, reason, since):
        """When the kubelet said so of a pod, at or after `since`."""
        self.still_sees()
        return next(
            (e["at"] for e in list(self.events) if e["pod"] == pod and e["reason"] == reason and since <= e["at"]),
            None,
        )

    def end(self):
        for watch in self.watches:
            watch.end(grace=0)


def wait(condition, within, every=0.1):
    """What `condition` gives once that is true; its last word if it is not within so many seconds."""
    end = time.monotonic() + within
    while True:
        found = condition()
        if found or end <= time.monotonic():
            return found
        time.sleep(every)


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
