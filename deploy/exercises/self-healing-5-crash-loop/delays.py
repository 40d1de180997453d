#!/usr/bin/env python3
"""How long the kubelet waited: reads what `kubectl get pod NAME --watch -o json` writes, prints "CRASH SECONDS" lines.

The time is from the container's n-th end to its next start, by the seconds that the API server has.
"""
import json, sys
from datetime import datetime


def at(text):
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def runs(text):
    """(run, started, ended or none), as often as it is told. Runs count from 1."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        try:
            pod, end = decoder.raw_decode(text, place)
        except ValueError:
            return                      # half written still
        place = end + len(text[end:]) - len(text[end:].lstrip())
        for status in pod["status"].get("containerStatuses", []):
            now, before, run = status["state"], status.get("lastState", {}), status["restartCount"] + 1
            if "running" in now:
                yield run, now["running"]["startedAt"], None
            if "terminated" in now:
                yield run, now["terminated"]["startedAt"], now["terminated"]["finishedAt"]
            if "terminated" in before:
                # While the kubelet waits, the state before is that of this run.
                of = run if "waiting" in now else run - 1
                yield of, before["terminated"]["startedAt"], before["terminated"]["finishedAt"]


def main():
    started, ended = {}, {}
    for run, start, end in runs(sys.stdin.read()):
        started[run] = at(start)
        if end:
            ended[run] = at(end)
    for run in sorted(ended):
        if run + 1 in started:
            print(run, started[run + 1] - ended[run])


if __name__ == "__main__":
    main()
