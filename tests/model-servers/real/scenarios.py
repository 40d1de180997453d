"""What is done to every server, and what must come of it.

Each scenario takes a guarded server that serves, leaves one that serves, and returns what was seen. A figure that
is missed is a result, not an exception.
"""

import concurrent.futures
import dataclasses
import signal
import threading
import time

import clients

# The slack of every "found within": two samples, a counter's reading, this driver's own polling.
SLACK = 1.0
# The longest that abandoned work may excuse silence; the engine's own limit.
BACKLOG_MAX = 300.0
# Times the capacity.
OVERLOAD = 3


@dataclasses.dataclass
class Seen:
    scenario: str
    good: bool
    # What the server's own health said meanwhile, and what Probegate said.
    own: str
    ours: str
    # Seconds that the scenario is about; None where there are none.
    took: float = None
    reason: str = ""


def load(run):
    """The sidecar is there first. Not ready and not condemned while the server loads."""
    begun = time.monotonic()
    run.watches["ready"].wait(503, 10)
    run.start_server()
    started = time.monotonic()
    ready = run.watches["ready"].wait(200, run.server.load_within)
    # A server that says ready may still answer its first request late.
    first = run.predict()[0] if ready else None
    good = first == 200 and run.failures("health", begun) == 0
    took = None if ready is None else ready - started
    return Seen("load", good, run.own(started, ready), run.ours(begun, ready), took, f"first answer {first}")


def serve(run):
    begun = time.monotonic()
    answers = [run.predict(20)[0] for _ in range(5)]
    return Seen("serve", answers == [200] * 5 and calm(run, begun), run.own(begun), run.ours(begun), reason=f"{answers}")


def saturate(run):
    """10 s at three times the capacity; every client waits."""
    begun = time.monotonic()
    statuses, _ = clients.load(run.predict, OVERLOAD / run.server.seconds, 10)
    took = time.monotonic() - begun
    good = set(statuses) == {200} and calm(run, begun)
    return Seen("saturate", good, run.own(begun), run.ours(begun), took, f"answers {statuses}")


def abandoned(run):
    """20 s at three times the capacity with clients that give up after 2 s; then one that waits."""
    begun, over = overload(run)
    next_one = run.predict(BACKLOG_MAX + 30)[0]
    took = time.monotonic() - over
    good = next_one == 200 and calm(run, begun)
    reason = f"the next request: {next_one} after {took:.1f} s" + blame(run, begun)
    return Seen("abandoned", good, run.own(begun), run.ours(begun), took, reason)


def abandoned_stopped(run):
    """The same, and the worker stopped in that minute: found, at the latest when the backlog must have ended."""
    overload(run)
    pending = run.predict_later(BACKLOG_MAX + 120)
    time.sleep(1)
    bound = run.backlog()
    worker = run.worker()
    stopped = run.signal_worker(signal.SIGSTOP)
    found = run.watches["health"].wait(503, bound + run.stall_after + SLACK, stopped)
    # Its own supervisor may have been faster, and then there is nothing to find.
    mended = run.worker() != worker
    reason = f"backlog of {bound:.1f} s at the stop; {run.reason()}" + ("; its supervisor replaced it" if mended else "")
    good = found is not None or mended
    seen = Seen("abandoned, stopped", good, run.own(stopped, found), run.ours(stopped, found))
    seen.took = None if found is None else found - stopped
    well, words = let_go(run, pending)
    seen.reason = f"{reason}; {words}"
    seen.good &= well
    return seen


def stop(run):
    """The worker stopped with a request pending."""
    pending = run.predict_later(body=run.server.long)
    time.sleep(1 if run.server.long else 0.2)
    stopped = run.signal_worker(signal.SIGSTOP)
    found = run.watches["health"].wait(503, run.stall_after + 5, stopped)
    took = None if found is None else found - stopped
    good = took is not None and run.stall_after - 0.3 <= took <= run.stall_after + SLACK
    seen = Seen("stop", good, run.own(stopped, found), run.ours(stopped, found), took)
    reason = run.reason()
    well, words = let_go(run, pending)
    seen.reason = f"{reason}; {words}"
    seen.good &= well
    return seen


def left_alone(run):
    """Stopped and not let go: condemned, and well again once its own supervisor has replaced it."""
    pending = run.predict_later()
    time.sleep(0.2)
    worker = run.worker()
    stopped = run.signal_worker(signal.SIGSTOP)
    found = run.watches["health"].wait(503, run.stall_after + 5, stopped)
    said = run.reason()
    served = await_answer(run, 60)
    well = None if found is None else run.watches["health"].wait(200, 10, found)
    replaced = run.worker() != worker
    pending.join(60)
    took = None if served is None else served - stopped
    good = served is not None and well is not None and replaced
    reason = f"{said}; replaced: {replaced}; the request in flight: {pending.answer}"
    return Seen("left alone", good, run.own(stopped), run.ours(stopped), took, reason)


def let_go_early(run):
    """Stopped, and let go before the verdict is due: none."""
    begun = time.monotonic()
    pending = run.predict_later(body=run.server.long)
    time.sleep(1 if run.server.long else 0.2)
    run.signal_worker(signal.SIGSTOP)
    time.sleep(run.stall_after - 1)
    run.signal_worker(signal.SIGCONT)
    pending.join(60)
    time.sleep(run.stall_after)
    good = pending.answer == 200 and calm(run, begun)
    reason = f"the request: {pending.answer}" + blame(run, begun)
    return Seen("let go early", good, run.own(begun), run.ours(begun), reason=reason)


def measure(run):
    """Its capacity, from eight clients that ask one request after the other; the overload rests on it."""
    begun, asked = time.monotonic(), 40

    def ask_some():
        return [run.predict(60)[0] for _ in range(asked // 8)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [answer for some in [pool.submit(ask_some) for _ in range(8)] for answer in some.result()]
    run.server.seconds = (time.monotonic() - begun) / asked
    reason = f"{1 / run.server.seconds:.1f} requests a second"
    good = set(answers) == {200} and calm(run, begun)
    return Seen("measure", good, run.own(begun), run.ours(begun), run.server.seconds, reason)


def failing(run):
    """The worker stopped where the front answers for it: every inference fails, its health says well."""
    begun = time.monotonic()
    traffic = Traffic(run)
    # So much that is good has been seen before.
    time.sleep(10)
    stopped = run.signal_worker(signal.SIGSTOP)
    out = run.watches["ready"].wait(503, 20, stopped)
    took = None if out is None else out - stopped
    time.sleep(5)
    own, ours = run.own(stopped), run.ours(stopped)
    reason = run.reason("outcomes")
    let = run.signal_worker(signal.SIGCONT)
    # Seen of Triton 2.51: it aborts on the first inference after its stub was let go, and a kubelet starts it again.
    died = await_end(run, 5)
    if died:
        run.end_server()
        run.start_server()
    back = await_steady(run, 90)
    statuses = traffic.end()
    good = took is not None and took <= 5 and back is not None
    well = run.predict(30)[0] == 200
    out_for = f"/ready 503 x{run.failures('ready', stopped, let)} while it was stopped"
    ended = "it then died and was started again" if died else "it lived on"
    returned = "not back" if back is None else f"back {back - let:.1f} s after SIGCONT"
    return Seen("stop", good and well, own, ours, took, f"{reason}; {out_for}; {ended}; {returned}, answers {statuses}" + blame(run, begun))


def kill(run):
    """The worker killed with a request pending: no hang, whatever else it is. Then the server is whole again."""
    begun = time.monotonic()
    pending = run.predict_later(30, run.server.long)
    time.sleep(1 if run.server.long else 0.2)
    run.signal_worker(signal.SIGKILL)
    killed = time.monotonic()
    pending.join(31)
    out = run.watches["ready"].wait(503, 10, killed)
    answered = await_answer(run, 40) if run.process.poll() is None else None
    by_itself = answered is not None
    own, ours = run.own(killed), run.ours(killed)
    stalled = "stalled" in blame(run, begun)
    if not by_itself:
        run.end_server()
        run.start_server()
        answered = await_answer(run, run.server.load_within)
    run.watches["ready"].wait(200, 30)
    took = None if answered is None else answered - killed
    how = "by itself" if by_itself else "when started again"
    left = "readiness never left" if out is None else f"out of rotation after {out - killed:.1f} s"
    reason = f"the request in flight: {pending.answer}; {left}; serves {how}" + blame(run, begun)
    return Seen("kill", answered is not None and not stalled, own, ours, took, reason)


def recover(run):
    """The whole server killed and started again, as a kubelet does: back, and judged anew."""
    begun = time.monotonic()
    run.end_server()
    out = run.watches["ready"].wait(503, 30, begun)
    run.start_server()
    ready = run.watches["ready"].wait(200, run.server.load_within)
    took = None if ready is None else ready - begun
    answers = [run.predict(30)[0] for _ in range(3)] if ready else []
    good = out is not None and answers == [200] * 3 and run.failures("health", begun) == 0
    return Seen("recover", good, run.own(begun), run.ours(begun), took, f"answers {answers}" + blame(run, begun))


# Parts of scenarios.


class Traffic:
    """One client that asks for little, again and again, until `end`; at most three minutes."""

    def __init__(self, run, pause=0.1):
        self.run, self.pause = run, pause
        self.statuses, self.stopped = {}, False
        self.thread = threading.Thread(target=self.turn, daemon=True)
        self.thread.start()

    def turn(self):
        end = time.monotonic() + 180
        while not self.stopped and time.monotonic() < end:
            status, _ = self.run.predict(10, self.run.server.quick)
            self.statuses[status] = self.statuses.get(status, 0) + 1
            time.sleep(self.pause)

    def end(self):
        self.stopped = True
        self.thread.join()
        return self.statuses


def overload(run):
    """When it began and when it was over."""
    begun = time.monotonic()
    _, over = clients.load(lambda: run.predict(2.0), OVERLOAD / run.server.seconds, 20)
    return begun, over


def let_go(run, pending):
    """Continues the worker; whether it is well again, in words too, and after how long."""
    let = run.signal_worker(signal.SIGCONT)
    pending.join(BACKLOG_MAX)
    served = await_answer(run, BACKLOG_MAX)
    well = served is not None and run.watches["health"].wait(200, 30) is not None
    # A kubelet would have restarted it at the first verdict. That it was not, shows what it remembers of the backlog.
    again = len(run.turned("health", "fail", let))
    words = f"let go: serves after {served - let:.1f} s" if well else "let go: does not serve"
    return well, words + (f", condemned {again} times more while it worked the rest off" if again else "")


def await_answer(run, within):
    """When a request was answered well."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if run.predict(max(1.0, end - time.monotonic()))[0] == 200:
            return time.monotonic()
        time.sleep(0.2)
    return None


def await_end(run, within):
    """Whether the server ends by itself."""
    end = time.monotonic() + within
    while time.monotonic() < end and run.process.poll() is None:
        time.sleep(0.1)
    return run.process.poll() is not None


def await_steady(run, within):
    """When five requests in a row have been answered well."""
    end, in_a_row = time.monotonic() + within, 0
    while time.monotonic() < end:
        in_a_row = in_a_row + 1 if run.predict(10, run.server.quick)[0] == 200 else 0
        if in_a_row == 5:
            return time.monotonic()
        time.sleep(0.2)
    return None


def calm(run, since):
    """Neither liveness nor readiness failed."""
    return run.failures("health", since) == 0 and run.failures("ready", since) == 0


def blame(run, since):
    """Why /health turned since then, if it did."""
    turned = run.turned("health", "fail", since)
    return f"; /health failed: {turned[-1]['reason']}" if turned else ""


def of(server):
    """The scenarios of one server, in the order in which they leave it well."""
    stopped = [failing] if server.stopped == "failing" else [let_go_early, stop]
    measured = [] if server.goes_on else [measure]
    overloads = [abandoned] if server.stopped == "failing" else [abandoned, abandoned_stopped]
    alone = [left_alone] if server.watched else []
    # What an overload leaves excuses silence for longer than gunicorn looks on.
    return [load, serve, *measured, *stopped, *alone, saturate, *overloads, kill, recover]
