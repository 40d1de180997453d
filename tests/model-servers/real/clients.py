"""Who asks: single requests, an open-loop load, and watchers that note what an endpoint says and when.

Every loop here is bounded by a count or by its `stop`.
"""

import concurrent.futures
import http.client
import socket
import threading
import time


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask(port, method, path, body=None, timeout=5.0, headers=None):
    """Status and body; the word "refused" or "silent" instead of a status where there was none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (TimeoutError, socket.timeout):
        return "silent", ""
    except ConnectionRefusedError:
        return "refused", ""
    except (OSError, http.client.HTTPException) as error:
        return "cut", type(error).__name__
    finally:
        connection.close()


def load(send, rate, seconds):
    """Calls `send` `rate` times a second, whether earlier calls have ended or not; the statuses, counted."""
    statuses = {}
    begun = time.monotonic()
    count = int(rate * seconds)
    with concurrent.futures.ThreadPoolExecutor(min(256, count)) as pool:
        asked = []
        for turn in range(count):
            time.sleep(max(0.0, begun + turn / rate - time.monotonic()))
            asked.append(pool.submit(send))
        ended = time.monotonic()
        for answer in asked:
            status = answer.result()[0]
            statuses[status] = statuses.get(status, 0) + 1
    return statuses, ended


class Later(threading.Thread):
    """One request in the background."""

    def __init__(self, send):
        super().__init__(daemon=True)
        self.send, self.answer, self.ended = send, None, None
        self.begun = time.monotonic()
        self.start()

    def run(self):
        self.answer = self.send()[0]
        self.ended = time.monotonic()


class Watch(threading.Thread):
    """Asks an endpoint over and over; remembers every answer."""

    def __init__(self, port, path, every, timeout):
        super().__init__(daemon=True)
        self.port, self.path, self.every, self.timeout = port, path, every, timeout
        self.seen = []
        self.news = threading.Condition()
        self.stopped = False
        self.start()

    def run(self):
        while not self.stopped:
            begun = time.monotonic()
            status, _ = ask(self.port, "GET", self.path, timeout=self.timeout)
            ended = time.monotonic()
            with self.news:
                self.seen.append((ended, status, ended - begun))
                self.news.notify_all()
            time.sleep(max(0.02, begun + self.every - ended))

    def stop(self):
        self.stopped = True

    def last(self):
        with self.news:
            return self.seen[-1][1] if self.seen else None

    def wait(self, status, within, since=None):
        """When it said so, at or after `since`; None if it did not within so many seconds from now."""
        end = time.monotonic() + within
        since = time.monotonic() if since is None else since
        with self.news:
            while True:
                found = next((at for at, said, _ in self.seen if since <= at and said == status), None)
                left = end - time.monotonic()
                if found is not None or left <= 0:
                    return found
                self.news.wait(left)

    def between(self, since, until=None):
        with self.news:
            return [entry for entry in self.seen if since <= entry[0] and (until is None or entry[0] <= until)]

    def said(self, since, until=None):
        """What it said, for a table: "200 x40 (max 3 ms)"."""
        counts, slowest = {}, 0.0
        for _, status, took in self.between(since, until):
            counts[status] = counts.get(status, 0) + 1
            slowest = max(slowest, took)
        return ", ".join(f"{status} x{count}" for status, count in counts.items()) + f" (max {slowest * 1000:.0f} ms)"


class Kubelet(threading.Thread):
    """The naive design: probes the server itself and counts the restarts that it would have ordered.

    It restarts nothing, so that the server goes on as it is; after each restart that it would have made it looks
    away for as long as one takes.
    """

    def __init__(self, port, path, period=10.0, timeout=1.0, threshold=3, restart=10.0):
        super().__init__(daemon=True)
        self.port, self.path = port, path
        self.period, self.timeout, self.threshold, self.restart = period, timeout, threshold, restart
        self.probes, self.failures, self.restarts = 0, 0, []
        self.stopped = threading.Event()
        self.start()

    def run(self):
        in_a_row, pause = 0, self.period
        while not self.stopped.wait(pause):
            status, _ = ask(self.port, "GET", self.path, timeout=self.timeout)
            self.probes += 1
            well = isinstance(status, int) and 200 <= status < 400
            self.failures += not well
            in_a_row = 0 if well else in_a_row + 1
            pause = self.period
            if self.threshold <= in_a_row:
                self.restarts.append(time.monotonic())
                in_a_row, pause = 0, self.period + self.restart

    def stop(self):
        self.stopped.set()

    def said(self):
        return f"{self.failures} of {self.probes} probes failed: {len(self.restarts)} restarts"
