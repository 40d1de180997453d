"""Saturation for a long time, beside the naive design: a kubelet that probes the server itself."""

import time

import clients
from scenarios import OVERLOAD, Seen, blame

# What people set for such a server: a few requests at once, the rest refused while they are fresh.
CONFIG = """
[traffic]
max_in_flight = 4
"""
PATIENCE = 10.0


def saturate(run, seconds):
    """Three times the capacity for so long: no gate may move, and answers go on."""
    kubelet = clients.Kubelet(run.ports["http"], run.server.health)
    begun = time.monotonic()
    statuses, _ = clients.load(lambda: run.predict(PATIENCE), OVERLOAD / run.server.seconds, seconds)
    kubelet.stop()
    dead, out = run.failures("health", begun), run.failures("ready", begun)
    enough = statuses.get(200, 0) * run.server.seconds / seconds
    reason = f"answers {statuses}, {enough:.0%} of the capacity; the kubelet at the server itself: {kubelet.said()}"
    good = dead == 0 and out == 0 and enough > 0.5
    return Seen("soak", good, run.own(begun), run.ours(begun), seconds, reason + blame(run, begun))
