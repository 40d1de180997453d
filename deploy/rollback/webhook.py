#!/usr/bin/env python3
"""An Alertmanager webhook that calls `kubectl rollout undo`.

    webhook.py --deployment NAMESPACE/NAME [--alert NAME]... [--listen HOST:PORT] [--kubectl PROGRAM] [--dry-run]

It rolls one Deployment back when one of the named alerts fires (ProbegateAccuracyLow by default) about a pod of its
current ReplicaSet: the labels `namespace` and `pod` say so, by the pod's name, so a pod that is gone by then counts too. An
alert about another Deployment, or about a revision that somebody has left behind already, does nothing.

It does so once for each release: the revision that its rollback made is noted on the Deployment, and an alert about that
revision is left to people, for undoing it would bring the bad release back.
"""
import argparse
import datetime
import http.server
import json
import subprocess
import sys
import threading

NOTE = "probegate/rolled-back-by-revision"
REVISION = "deployment.kubernetes.io/revision"
BODY_BYTES_MAX = 1024 * 1024
KUBECTL_TIMEOUT_SECONDS = 60
# Kubernetes cuts what it makes a pod's name of at 58 characters; the Deployment's name, a hash of 10 at most and two dashes
# must fit, or the name does not tell the ReplicaSet.
NAME_MAX = 46


def say(text):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    print(now, text, flush=True)


class Rollback:
    """One Deployment."""

    def __init__(self, deployment, alerts, kubectl, dry_run):
        self.namespace, _, self.name = deployment.partition("/")
        self.alerts = set(alerts)
        self.kubectl = [*kubectl, "-n", self.namespace]
        self.dry_run = dry_run
        # Two alerts at once are one rollback.
        self.lock = threading.Lock()
        # Beside the note on the Deployment, which may fail to be written.
        self.ours = set()

    def run(self, *arguments):
        done = subprocess.run([*self.kubectl, *arguments], capture_output=True, text=True, timeout=KUBECTL_TIMEOUT_SECONDS)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"kubectl exited with {done.returncode}")
        return done.stdout

    def concerns(self, alert):
        labels = alert.get("labels", {})
        here = labels.get("namespace", self.namespace) == self.namespace
        return alert.get("status") == "firing" and labels.get("alertname") in self.alerts and here

    def judge(self, alerts):
        """What was done, in words."""
        firing = [alert["labels"] for alert in alerts if self.concerns(alert)]
        if not firing:
            return "nothing to do: no alert that calls for a rollback"
        # The namespace too: releases of one name have pods of the same hash wherever they run.
        pods = {labels["pod"]: labels["alertname"] for labels in firing if labels.get("pod") and labels.get("namespace")}
        if not pods:
            return f"left alone: {firing[0]['alertname']} does not say of which pod: it has no label `pod`, or no `namespace`"
        with self.lock:
            return self.undo(pods)

    def replica_set(self, revision):
        """The name of the ReplicaSet of a revision."""
        for found in json.loads(self.run("get", "replicasets", "-o", "json"))["items"]:
            about = found["metadata"]
            owners = [owner["name"] for owner in about.get("ownerReferences", []) if owner["kind"] == "Deployment"]
            if owners == [self.name] and about.get("annotations", {}).get(REVISION) == revision:
                return about["name"]
        raise RuntimeError(f"no ReplicaSet of revision {revision} yet")

    def undo(self, pods):
        found = json.loads(self.run("get", "deployment", self.name, "-o", "json"))
        if found.get("status", {}).get("observedGeneration") != found["metadata"].get("generation"):
            raise RuntimeError("the Deployment has just changed, and its revision is not known yet")
        notes = found["metadata"].get("annotations", {})
        revision = notes.get(REVISION, "")
        current = self.replica_set(revision)
        # All but the end that makes a pod's name its own.
        reason = next((f"{alert} of {pod}" for pod, alert in pods.items() if pod.rpartition("-")[0] == current), None)
        if reason is None:
            return f"left alone: {', '.join(sorted(pods))} is no pod of {current}, which is revision {revision} of {self.name}"
        if revision in self.ours or notes.get(NOTE) == revision:
            return f"left alone: revision {revision} is what a rollback made; a person is needed"
        if revision == "1":
            return "left alone: revision 1 has none before it"
        if self.dry_run:
            return f"would undo revision {revision} of {self.name}: {reason}"
        self.run("rollout", "undo", f"deployment/{self.name}")
        # The controller numbers the revision a moment later; it is always the next one. Only now, for `undo` also brings
        # back the Deployment's annotations as they were.
        made = str(int(revision) + 1)
        self.ours.add(made)
        self.run("annotate", "--overwrite", f"deployment/{self.name}", f"{NOTE}={made}")
        return f"undid revision {revision} of {self.name}: {reason}"


def handler(rollback):
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self):
            declared = self.headers.get("Content-Length") or ""
            length = int(declared) if declared.isdecimal() else 0
            if self.path != "/alerts":
                return self.reply(404, "POST /alerts")
            if not 0 < length <= BODY_BYTES_MAX:
                return self.reply(413 if length else 411, "a body of a known length, at most 1 MiB")
            try:
                alerts = json.loads(self.rfile.read(length)).get("alerts", [])
                told = rollback.judge(alerts)
            except (ValueError, AttributeError, KeyError, TypeError) as error:
                return self.reply(400, f"not an Alertmanager notification: {error}")
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                # Not 2xx, so that Alertmanager tries again.
                say(f"failed: {error}")
                return self.reply(502, str(error))
            say(told)
            return self.reply(200, told)

        def reply(self, code, text):
            body = (text + "\n").encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """What was done is said once, above."""

    return Handler


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--deployment", required=True, metavar="NAMESPACE/NAME")
    ask.add_argument("--alert", action="append", default=[])
    ask.add_argument("--listen", default="127.0.0.1:9095", metavar="HOST:PORT")
    ask.add_argument("--kubectl", default="kubectl", help="program and arguments, separated by spaces")
    ask.add_argument("--dry-run", action="store_true")
    a = ask.parse_args()
    namespace, _, name = a.deployment.partition("/")
    if not namespace or not name:
        ask.error("--deployment NAMESPACE/NAME")
    if len(name) > NAME_MAX:
        ask.error(f"--deployment: a name of more than {NAME_MAX} characters does not stand whole in its pods' names")
    host, _, port = a.listen.rpartition(":")
    rollback = Rollback(a.deployment, a.alert or ["ProbegateAccuracyLow"], a.kubectl.split(), a.dry_run)
    server = http.server.ThreadingHTTPServer((host, int(port)), handler(rollback))
    say(f"listening on {a.listen} for {', '.join(sorted(rollback.alerts))}")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
