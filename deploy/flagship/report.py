"""docs/flagship.md and its pictures, from the records of the scenes that were played."""

import json
import os
import time

import picture
import scenes

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
DOCS = os.path.join(ROOT, "docs")
HEAD = """# The flagship: an engine that hangs, on a cluster

Made by `deploy/flagship/run`; [deploy/flagship](../deploy/flagship/README.md) says how it is set up and what is done.

Two pods with the same real vLLM and the same tiny model of random weights. One has the probes that vLLM's own page on
Kubernetes gives it: the kubelet asks vLLM's `/health`. The other is the Helm chart with the preset `vllm` and
`stall_after = "{stall_after}s"`: the kubelet asks Probegate. Requests come from a third pod, by way of two Services.

The third pod also asks each health endpoint five times a second. Where nothing but 200 is promised, at most {unanswered:.0%}
of these looks may have got no answer within 2 s, for on one machine it may be the looker who was late.
"""
TAIL = """## What it taught

- vLLM sends the head of a stream at once, with its engine stopped too. While such heads counted as a sign of life, a
  hang was not found as long as new streams came within `stall_after`; they count no more.
- A node with many times its work answers a probe late now and then, whoever is asked. With the chart's
  `probes.readiness.failureThreshold: 1` one such probe takes the pod out for a few seconds; here it is 3.
"""
TITLES = {
    "stopped": "EngineCore stopped in mid-stream",
    "let-go": "Stopped, and let go before the verdict",
    "killed": "EngineCore killed in mid-stream",
    "overload": "Three times the capacity",
}


def write(out):
    records = {}
    for name in TITLES:
        path = os.path.join(out, f"{name}.json")
        if os.path.exists(path):
            with open(path) as file:
                records[name] = json.load(file)
    if not records:
        return
    stall_after = next(iter(records.values()))["stall_after"]
    lines = [HEAD.format(stall_after=stall_after, unanswered=scenes.UNANSWERED_MAX), *machine(records)]
    for name, record in records.items():
        lines += section(name, record)
    lines.append(TAIL)
    with open(os.path.join(DOCS, "flagship.md"), "w") as file:
        file.write("\n".join(lines).rstrip() + "\n")
    os.makedirs(os.path.join(DOCS, "img"), exist_ok=True)
    for name, draw in picture.DRAWN.items():
        if drawable(records.get(name)):
            with open(os.path.join(DOCS, "img", f"flagship-{name}.svg"), "w") as file:
                file.write(draw(records[name]))


def drawable(record):
    """A scene that broke off has not all the marks that its picture needs."""
    needs = {"stopped": ("guarded STOP", "naive CONT"), "overload": ("load", "over")}
    return record is not None and all(mark in record["marks"] for mark in needs[record["scene"]])


def machine(records):
    last = max(records.values(), key=lambda record: record["ended"])
    m = last["machine"]
    loads = [load for record in records.values() for load in record["load"]]
    when = time.strftime("%Y-%m-%d", time.gmtime(last["ended"]))
    return [
        f"Seen on {when}: Kubernetes {m['kubernetes']}, vLLM {m['vllm']} on the CPU, {m['cores']} cores and",
        f"{m['memory_gib']} GiB for everything, which other work shared: the load average was between",
        f"{min(loads):.0f} and {max(loads):.0f}. It is why a start of vLLM takes so long here.",
        "",
    ]


def section(name, record):
    lines = [f"## {TITLES[name]}", ""]
    if name in picture.DRAWN and drawable(record):
        lines += [f"![{TITLES[name]}: a time line of both pods](img/flagship-{name}.svg)", ""]
    lines += {"stopped": stopped, "let-go": let_go, "killed": killed, "overload": overload}[name](record)
    lines += ["", "| promised | seen |", "|---|---|"]
    for outcome in record["outcomes"]:
        seen = outcome["seen"] or "yes"
        lines.append(
            f"| {outcome['what']} | {seen if outcome['good'] else '**missed** ' + outcome['seen']} |".replace(
                "||", "|"
            )
        )
    return [*lines, ""]


def stopped(record):
    marks = record["marks"]
    zero = marks["guarded STOP"]
    steps = [
        ("guarded found", "Probegate's `/health` says 503"),
        ("guarded killed", "the kubelet, told so three times, kills the container"),
        ("guarded started", "it runs again"),
        ("guarded ready", "`Ready` again: the model is loaded"),
        ("guarded answered", "the first request is answered"),
    ]
    lines = [
        "`SIGSTOP` to the process `VLLM::EngineCore` of both pods while it writes a stream.",
        "",
        "| guarded pod | after |",
        "|---|---|",
    ]
    lines += [f"| {words} | {marks[mark] - zero:.1f} s |" for mark, words in steps if marks.get(mark)]
    ends = counts(record["pods"]["naive"]["requests"], marks["naive STOP"], marks.get("naive CONT", record["ended"]))
    looked = record["facts"].get("looked for")
    if looked:
        lines += [
            "",
            f"The other pod was looked at for {looked:.0f} s, `Ready` and silent ({words_of(ends)}),",
            f"and would be so still: it was continued by hand{', and its stream went on' if went_on(record) else ''}.",
        ]
    return lines


def went_on(record):
    """Whether the naive pod's stream had more tokens in the end than when its engine was continued."""
    stream = record["pods"]["naive"]["stream"]
    before = [entry["tokens"] for entry in stream if entry["at"] <= record["marks"]["naive CONT"]]
    return bool(before) and before[-1] < stream[-1]["tokens"]


def let_go(record):
    held = record["facts"].get("stopped for", 0)
    return [f"`SIGSTOP`, and `SIGCONT` after {held:.1f} s, below the {record['stall_after']} s of `stall_after`."]


def killed(record):
    facts = record["facts"]
    lines = [
        "`SIGKILL` to the same process. vLLM notices, and its container ends by itself; there is nothing to restart."
    ]
    if facts.get("guarded own"):
        lines += ["", f"vLLM's own `/health` in the guarded pod: {facts['guarded own']}."]
    return lines


def overload(record):
    facts = record["facts"]
    minutes = (record["marks"]["over"] - record["marks"]["load"]) / 60
    can = facts["capacity"]
    lines = [
        f"Capacity, measured first with both at work: {can['guarded']:.1f} and {can['naive']:.1f} requests a second.",
        f"Then {scenes.OVERLOAD} times that for each at once, for {minutes:.0f} minutes; clients leave after 10 s.",
        "",
        "| | guarded | vLLM's own probes |",
        "|---|---|---|",
    ]
    rows = [
        ("asked", "asked"),
        ("answered", "answered"),
        ("restarts", "restarted"),
        ("times that readiness turned", "turned"),
    ]
    lines += [f"| {words} | {facts.get(f'guarded {key}')} | {facts.get(f'naive {key}')} |" for words, key in rows]
    late = [str(unanswered(record, app)) for app in ("guarded", "naive")]
    lines += [f"| probes that the kubelet got no answer to in time | {' | '.join(late)} |"]
    lines += [f"| vLLM's own `/health` | {facts['guarded own']} | {facts['naive own']} |"]
    return lines


def unanswered(record, app):
    """Of the kubelet's events; it reports some of the same kind only once."""
    begun, over = record["marks"]["load"], record["marks"]["over"]
    events = [event for event in record["pods"][app]["events"] if begun <= event["at"] <= over]
    return sum(event["reason"] == "Unhealthy" and "deadline exceeded" in event["message"] for event in events)


def counts(requests, since, until):
    ends = {}
    for request in requests:
        if since <= request["begun"] and request["ended"] <= until:
            ends[request["request"]] = ends.get(request["request"], 0) + 1
    return ends


def words_of(ends):
    total = sum(ends.values())
    return f"{total} requests, {ends.get('answered', 0)} answered"
