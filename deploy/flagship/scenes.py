"""What is done to both pods, what must come of it, and what was seen: one record a scene, for report and pictures.

A promise that is missed is a result, not an exception.
"""

import json
import os
import re
import time

import cluster
from cluster import say, wait

PODS = ("guarded", "naive")
# A verdict may come so much later than `stall_after`: two samples, a counter's reading, the watcher's own period.
SLACK = 1.0
# Times the capacity.
OVERLOAD = 3
# Tokens of the stream that is stopped, and of each request of the overload.
STREAM, WORK = 4000, 100
# Seconds after which a client of the overload leaves.
PATIENCE = 10
# The share of looks that may get no answer within 2 s: on a machine with too much work the looker may be the late one.
UNANSWERED_MAX = 0.05
# Seconds within which a watch has told what it sees: it does so every ten, or later where a machine stands still.
TOLD_WITHIN = 60
# What the kubelet may take for a start of vLLM on a busy machine.
START_WITHIN = 900


class Scene:
    """One scene while it runs: watchers on both pods, and the record."""

    def __init__(self, name, stage):
        self.name, self.stage = name, stage
        self.marks, self.outcomes, self.facts, self.clients = {}, [], {}, []
        self.kubelet = cluster.Kubelet()
        self.names, self.watches = {}, {}
        for app in PODS:
            pod, address = cluster.pod(app)
            self.names[app] = pod
            targets = [f"own={address}:8000/health"]
            if app == "guarded":
                targets += [f"health={address}:9090/health", f"ready={address}:9090/ready"]
            self.watches[app] = self.client("watch", *targets, "--every", 0.2, "--for", 3600)
        self.traffic = {app: [] for app in PODS}
        self.streams = {}
        self.load = [os.getloadavg()[0]]
        wait(lambda: all(self.kubelet.seen.get(pod) for pod in self.names.values()), 60)
        wait(lambda: all(watch.said for watch in self.watches.values()), 60)
        self.begun = time.time()
        say(f"scene {name}")

    def client(self, *words):
        client = cluster.Client(self.stage.python, *words)
        self.clients.append(client)
        return client

    # What is done.

    def ask(self, app, rate, seconds, tokens=10, patience=15):
        words = ("--rate", rate, "--tokens", tokens, "--patience", patience, "--for", seconds)
        client = self.client("traffic", self.stage.service(app), *words)
        self.traffic[app].append(client)
        return client

    def in_mid_stream(self, signal, *apps):
        """Sends a signal to the EngineCore of each once it has written so much that it is in mid-stream; when."""
        triggers = {app: cluster.Trigger(self.names[app], signal) for app in apps}
        for app in apps:
            self.streams[app] = self.client("stream", self.stage.service(app), "--tokens", STREAM, "--for", 3600)
            if not wait(lambda app=app: 20 <= self.streams[app].tokens(), 120, every=0.02):
                raise RuntimeError(f"{app}: no stream to stop")
            # A signal that kills ends it too.
            if self.streams[app].outcome():
                raise RuntimeError(f"{app}: the stream was over before it could be stopped")
            self.marks[f"{app} {signal}"] = triggers[app].fire()
        return {app: self.marks[f"{app} {signal}"] for app in apps}

    def signal(self, app, signal):
        self.marks[f"{app} {signal}"] = at = cluster.Trigger(self.names[app], signal).fire()
        return at

    # What was seen.

    def said(self, app, name, since, until=None):
        """What an endpoint said, as runs of the same word; the first may have begun before `since`."""
        runs = {}
        for run in list(self.watches[app].said):
            if run.get("watch") == name:
                runs[run["from"]] = run
        return [run for run in runs.values() if since <= run["to"] and (until is None or run["from"] <= until)]

    def seen(self, app, name, since, until):
        """The same, once the watch has told of all that time; raises if it does not: its silence means nothing."""
        watch = self.watches[app]
        wait(lambda: not watch.is_alive() or self.said(app, name, until), TOLD_WITHIN)
        if not self.said(app, name, until):
            raise RuntimeError(f"{app}: the watch on {name} tells no more: the scene cannot be judged")
        return self.said(app, name, since, until)

    def first_said(self, app, name, word, since):
        return next(
            (
                run["from"]
                for run in list(self.watches[app].said)
                if run.get("watch") == name and run["said"] == word and since <= run["from"]
            ),
            None,
        )

    def answered(self, app, since):
        """When the first request that was asked later was answered."""
        ends = [
            r["ended"]
            for client in self.traffic[app]
            for r in client.requests()
            if r["request"] == "answered" and since <= r["begun"]
        ]
        return min(ends, default=None)

    def restarts(self, app):
        return self.kubelet.restarts(self.names[app])

    def ready(self, app):
        return self.kubelet.ready(self.names[app])

    def readiness_changes(self, app, since):
        """How often Ready turned."""
        self.kubelet.still_sees()
        states = [c["ready"] for c in self.kubelet.changes if c["pod"] == self.names[app] and since <= c["at"]]
        before = [c["ready"] for c in self.kubelet.changes if c["pod"] == self.names[app] and c["at"] < since][-1:]
        states = before + states
        return sum(a != b for a, b in zip(states, states[1:]))

    def verdicts(self, since):
        """The sentences in the sidecar's log that call the model server stalled."""
        log = self.sidecar_log(since)
        return list(dict.fromkeys(re.findall(r"stalled: [^\"\n\\]*", log)))

    def sidecar_log(self, since):
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since - 1))
        return cluster.kubectl("logs", self.names["guarded"], "-c", "probegate", "--since-time", stamp)

    # What is kept.

    def expect(self, what, good, seen=""):
        say(f"  {'ok' if good else 'MISSED'}: {what}{f' ({seen})' if seen else ''}")
        self.outcomes.append({"what": what, "good": bool(good), "seen": seen})

    def end(self):
        """Ends the clients and keeps the record; whether all was as promised."""
        self.load.append(os.getloadavg()[0])
        ended = time.time()
        for client in self.clients:
            client.end()
        self.kubelet.end()
        record = {
            "scene": self.name,
            "begun": self.begun,
            "ended": ended,
            "load": self.load,
            "stall_after": self.stage.stall_after,
            "machine": self.stage.machine,
            "marks": self.marks,
            "facts": self.facts,
            "outcomes": self.outcomes,
            "pods": {app: self.record(app) for app in PODS},
        }
        with open(os.path.join(self.stage.out, f"{self.name}.json"), "w") as file:
            json.dump(record, file)
        return all(outcome["good"] for outcome in self.outcomes)

    def record(self, app):
        pod = self.names[app]
        names = ("own", "health", "ready") if app == "guarded" else ("own",)
        return {
            "said": {name: self.said(app, name, 0) for name in names},
            "changes": [change for change in self.kubelet.changes if change["pod"] == pod],
            "events": [event for event in self.kubelet.events if event["pod"] == pod],
            "requests": [request for client in self.traffic[app] for request in client.requests()],
            "stream": [entry for entry in self.streams[app].said if "stream" in entry] if app in self.streams else [],
        }


def let_go(scene):
    """EngineCore stopped in mid-stream and continued before the verdict is due: none."""
    stage = scene.stage
    restarts = scene.restarts("guarded")
    # Ready before it is needed: on a busy machine an exec takes seconds.
    again = cluster.Trigger(scene.names["guarded"], "CONT")
    stopped = scene.in_mid_stream("STOP", "guarded")["guarded"]
    time.sleep(max(0, stopped + stage.stall_after - 3 - time.time()))
    at_stop = scene.streams["guarded"].tokens()
    went_on = scene.marks["guarded CONT"] = again.fire()
    scene.facts["stopped for"] = went_on - stopped
    outcome = wait(scene.streams["guarded"].outcome, 300)
    scene.expect(
        "the stream goes on to its end",
        outcome == "answered",
        f"{at_stop} tokens at the stop, {scene.streams['guarded'].tokens()} at the end",
    )
    time.sleep(stage.stall_after)
    now = time.time()
    expect_well(scene, "/health and /ready said nothing but 200", "guarded", ("health", "ready"), stopped, now)
    scene.expect("no verdict in the log", not scene.verdicts(stopped), "; ".join(scene.verdicts(stopped)))
    scene.expect("no restart", scene.restarts("guarded") == restarts)


def stopped(scene):
    """EngineCore stopped in mid-stream in both pods: one is found and mended, the other is Ready and silent."""
    stage = scene.stage
    restarts = {app: scene.restarts(app) for app in PODS}
    for app in PODS:
        scene.ask(app, 0.5, stage.look + START_WITHIN)
    # So much that is good is in the picture.
    time.sleep(15)
    at = scene.in_mid_stream("STOP", *PODS)
    # Until the guarded pod serves again, and for as long as one looks at the other.
    mended(scene, at["guarded"], restarts["guarded"])
    time.sleep(max(0, at["naive"] + stage.look - time.time()))
    until = time.time()
    scene.facts["looked for"] = until - at["naive"]
    silent(scene, at["naive"], restarts["naive"])
    scene.signal("naive", "CONT")
    outcome = wait(scene.streams["naive"].outcome, 120)
    scene.facts["naive stream"] = outcome
    wait(lambda: scene.answered("naive", until), 60)


def mended(scene, at, restarts):
    """The guarded pod's way from the stop to its next answer."""
    stage, app = scene.stage, "guarded"
    pod = scene.names[app]
    found = wait(lambda: scene.first_said(app, "health", "503", at), stage.stall_after + 30)
    after = found and found - at
    scene.expect(
        f"found within stall_after + {SLACK:.0f} s",
        found and after <= stage.stall_after + SLACK,
        f"/health 503 after {after:.1f} s" if found else "never",
    )
    verdicts = scene.verdicts(at)
    scene.expect(
        "the reason names the frozen counter",
        any("vllm:iteration_tokens_total_count" in v for v in verdicts),
        verdicts[0] if verdicts else "",
    )
    killed = wait(lambda: scene.kubelet.event(pod, "Killing", at), 120)
    scene.expect("the kubelet kills the container", killed, killed and f"after {killed - at:.1f} s")
    again = wait(lambda: scene.restarts(app) == restarts + 1, 120)
    started = time.time()
    scene.expect("and starts it again", again, f"after {started - at:.1f} s")
    back = wait(lambda: scene.ready(app) and time.time(), START_WITHIN)
    scene.expect("Ready again", back, back and f"after {back - at:.1f} s")
    served = wait(lambda: scene.answered(app, started), 60)
    scene.expect("and answering", served, served and f"after {served - at:.1f} s")
    scene.marks.update(
        {
            "guarded found": found,
            "guarded killed": killed,
            "guarded started": started,
            "guarded ready": back,
            "guarded answered": served,
        }
    )
    # Last, because it may wait for what the watch tells late, and the marks above are not to.
    expect_well(scene, "vLLM's own /health was 200 until it was found", app, ("own",), at, found or started)


def expect_well(scene, what, app, names, since, until):
    """The promise that endpoints said nothing but 200, and its allowance."""
    runs = [scene.seen(app, name, since, until) for name in names]
    said = [run for some in runs for run in some]
    what += f", and {UNANSWERED_MAX:.0%} of the looks at most got no answer"
    scene.expect(what, all(map(well, runs)), looks(said))


def well(runs):
    """Nothing but 200 was said, to somebody who looked."""
    lost = sum(run["count"] for run in runs if run["said"] == "silent")
    said = {run["said"] for run in runs}
    return "200" in said and said <= {"200", "silent"} and lost <= UNANSWERED_MAX * sum(run["count"] for run in runs)


def looks(runs):
    """How often was looked; a look without an answer within 2 s may be the looker's own slowness."""
    count, lost = (sum(run["count"] for run in some) for some in (runs, [r for r in runs if r["said"] == "silent"]))
    slowest = max((run["slowest"] for run in runs), default=0)
    return f"{count} looks, the slowest {slowest:.2f} s" + (f", {lost} without an answer within 2 s" if lost else "")


def silent(scene, at, restarts):
    """The naive pod, for as long as one looked."""
    until = time.time()
    expect_well(scene, f"beside it, vLLM's own /health is 200 for {until - at:.0f} s", "naive", ("own",), at, until)
    scene.expect("the pod is Ready throughout", scene.ready("naive") and scene.readiness_changes("naive", at) == 0)
    scene.expect("nobody restarts it", scene.restarts("naive") == restarts)
    requests = [r for client in scene.traffic["naive"] for r in client.requests() if at <= r["begun"]]
    answered = [r for r in requests if r["request"] == "answered"]
    still_asking = all(client.is_alive() for client in scene.traffic["naive"])
    scene.expect(
        "and nobody is answered",
        still_asking and requests and not answered,
        f"{len(requests)} asked, {len(answered)} answered",
    )


def overload(scene):
    """Both pods at three times what they can do."""
    stage = scene.stage
    measured = {
        app: scene.client("capacity", stage.service(app), "--clients", 8, "--tokens", WORK, "--for", 30)
        for app in PODS
    }
    for client in measured.values():
        client.process.wait()
        client.join()
    rates = {app: max(0.5, rate(client.requests())) for app, client in measured.items()}
    scene.facts["capacity"] = rates
    say(f"  capacity {rates}")
    restarts = {app: scene.restarts(app) for app in PODS}
    began = time.time()
    scene.marks["load"] = began
    for app in PODS:
        scene.ask(app, OVERLOAD * rates[app], stage.overload, tokens=WORK, patience=PATIENCE)
    while time.time() < began + stage.overload:
        time.sleep(min(60, max(0.1, began + stage.overload - time.time())))
        say("  " + ", ".join(f"{app}: ready {scene.ready(app)}, {scene.restarts(app)} restarts" for app in PODS))
    over = time.time()
    scene.marks["over"] = over
    minutes = f"{(over - began) / 60:.0f} minutes"
    for app in PODS:
        turned, again = scene.readiness_changes(app, began), scene.restarts(app) - restarts[app]
        own = scene.seen(app, "own", began, over)
        scene.facts[f"{app} own"] = f"{', '.join(sorted({run['said'] for run in own}))}: {looks(own)}"
        scene.facts[f"{app} turned"], scene.facts[f"{app} restarted"] = turned, again
    scene.expect(f"{minutes}: no restart of the guarded pod", scene.facts["guarded restarted"] == 0)
    scene.expect("its readiness never turned", scene.facts["guarded turned"] == 0 and scene.ready("guarded"))
    expect_well(scene, "/health and /ready said nothing but 200", "guarded", ("health", "ready"), began, over)
    scene.expect("no verdict in the log", not scene.verdicts(began), "; ".join(scene.verdicts(began)))
    time.sleep(PATIENCE + 2)
    for app in PODS:
        requests = [r for client in scene.traffic[app] for r in client.requests()]
        answered = sum(r["request"] == "answered" for r in requests)
        scene.facts[f"{app} asked"], scene.facts[f"{app} answered"] = len(requests), answered
        due = OVERLOAD * rates[app] * stage.overload
        scene.expect(
            f"{app}: it was an overload, to its end",
            0.8 * due <= len(requests) and answered < 0.6 * len(requests),
            f"{len(requests)} asked, {answered} answered",
        )


def rate(requests):
    """Answers a second, the first few seconds left out."""
    begun = min((r["begun"] for r in requests), default=0) + 5
    ends = [r["ended"] for r in requests if r["request"] == "answered" and begun <= r["ended"]]
    return len(ends) / (max(ends) - begun) if 1 < len(ends) else 0


def killed(scene):
    """EngineCore killed in mid-stream in both pods: no hang, and said so."""
    restarts = {app: scene.restarts(app) for app in PODS}
    for app in PODS:
        scene.ask(app, 0.5, START_WITHIN)
    at = scene.in_mid_stream("KILL", *PODS)
    for app in PODS:
        again = wait(lambda app=app: restarts[app] < scene.restarts(app), 180)
        started = time.time()
        back = wait(lambda app=app: scene.ready(app) and time.time(), START_WITHIN)
        served = wait(lambda app=app, started=started: scene.answered(app, started), 60)
        scene.marks.update({f"{app} started": started, f"{app} ready": back, f"{app} answered": served})
        ended = scene.kubelet.seen[scene.names[app]]["ended"] or {}
        scene.facts[f"{app} ended"] = {key: ended.get(key) for key in ("reason", "exitCode")}
        scene.expect(
            f"{app}: vLLM ends by itself, is started again and answers",
            again and back and served,
            f"exit code {ended.get('exitCode')}; answering after {served - at[app]:.0f} s" if served else "",
        )
    since = at["guarded"]
    scene.expect("Probegate does not call it a hang", not scene.verdicts(since), "; ".join(scene.verdicts(since)))
    what = "there is nothing for a restart to mend: /health said nothing but 200"
    expect_well(scene, what, "guarded", ("health",), since, time.time())
    scene.expect(
        "the kubelet's liveness probe had no part in it",
        not scene.kubelet.event(scene.names["guarded"], "Killing", since),
    )
    out = scene.first_said("guarded", "ready", "503", since)
    scene.marks["guarded out"] = out
    scene.expect("/ready turned at once", out and out - since < 5, out and f"after {out - since:.1f} s")
    own = " → ".join(dict.fromkeys(run["said"] for run in scene.said("guarded", "own", since)))
    scene.facts["guarded own"] = own


SCENES = {"let-go": let_go, "stopped": stopped, "overload": overload, "killed": killed}


def play(name, stage):
    scene = Scene(name, stage)
    try:
        SCENES[name](scene)
    except RuntimeError as error:
        scene.expect("the scene can be played", False, str(error))
    return scene.end()
