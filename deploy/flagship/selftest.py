#!/usr/bin/env python3
"""Whether the scenes' checks can miss, without a cluster: deploy/flagship/selftest.py; deploy/check runs it."""

import sys
import types

sys.dont_write_bytecode = True

import scenes  # noqa: E402

scenes.TOLD_WITHIN = 0.2
failed = []


def check(what, good):
    if not good:
        failed.append(what)


def run(said, count, since=0.0, to=100.0):
    return {"watch": "health", "said": said, "from": since, "to": to, "count": count, "slowest": 0.1}


def judged(runs, alive, until=100.0):
    """What comes of the promise, for what a watch has told: True, False, or None if the scene cannot be judged."""
    scene = scenes.Scene.__new__(scenes.Scene)
    scene.watches = {"guarded": types.SimpleNamespace(said=runs, is_alive=lambda: alive)}
    scene.outcomes = []
    try:
        scenes.expect_well(scene, "/health said nothing but 200", "guarded", ("health",), 0.0, until)
    except RuntimeError:
        return None
    return scene.outcomes[0]["good"]


check("what is well is well", judged([run("200", 500)], True) is True)
check("so it is when the watch ended afterwards", judged([run("200", 500)], False) is True)
check("nobody looked", judged([], True) is None)
check("the watch died before the end", judged([run("200", 100, to=20.0)], False) is None)
check("another endpoint's words are none", judged([{**run("200", 500), "watch": "ready"}], True) is None)
check("a 503 is a miss", judged([run("200", 400, to=80.0), run("503", 100, since=80.0)], True) is False)
fresh = [run("200", 400, to=99.0), run("503", 0, since=99.5)]
check("one told of but not counted yet too", judged(fresh, True) is False)
check("silence alone is a miss", judged([run("silent", 50)], True) is False)
some = [run("200", 96, to=90.0), run("silent", 4, since=90.0)]
check("four looks in a hundred unanswered are allowed", judged(some, True) is True)
more = [run("200", 94, to=90.0), run("silent", 6, since=90.0)]
check("six are not", judged(more, True) is False)
check("no runs at all", not scenes.well([]))
said = []
scene = types.SimpleNamespace(expect=lambda what, good, seen="": said.append(what), seen=lambda *_: [run("200", 1)])
scenes.expect_well(scene, "/health said nothing but 200", "guarded", ("health",), 0.0, 1.0)
check("the promise says what it allows", "5%" in said[0])

for what in failed:
    print(f"FAILED  {what}")
sys.exit(bool(failed))
