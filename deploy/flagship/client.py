"""Who asks, in the client pod. Prints one JSON object a line; its own standard library is all it needs.

    client.py watch --every S NAME=HOST:PORT/PATH...       what endpoints say, as runs of the same answer
    client.py stream HOST:PORT --tokens N                  one stream, token by token
    client.py traffic HOST:PORT --rate R --tokens N --patience S
                                                           so many a second, whether earlier ones have ended or not
    client.py capacity HOST:PORT --clients N --tokens N    so many at once, one after the other

Each ends after --for seconds, or when its standard input does. Times are the wall clock's.
"""

import argparse
import asyncio
import json
import os
import threading
import time

# Words that the tokenizer of the tiny model knows.
PROMPT = " ".join(f"w{number}" for number in range(50))
IN_FLIGHT_MAX = 1000


def say(**what):
    print(json.dumps(what), flush=True)


def completion(tokens):
    return json.dumps(
        {"model": "tiny", "prompt": PROMPT, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    ).encode()


class Exchange:
    """One request on a connection of its own, and what came of it."""

    def __init__(self, address, method, path, body=b""):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {address}", "Connection: close"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self.request = "\r\n".join([*lines, "", ""]).encode() + body
        self.status, self.reason, self.tokens, self.done = None, None, 0, False
        self.begun = time.time()
        self.first = self.ended = None

    async def run(self, patience):
        """Waits for its end for at most `patience` seconds; the outcome in a word."""
        try:
            await asyncio.wait_for(self.exchange(), patience)
            outcome = self.judge()
        except asyncio.TimeoutError:
            outcome = "silent"
        except ConnectionRefusedError:
            outcome = "refused"
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            outcome = "cut"
        self.ended = time.time()
        return outcome

    def judge(self):
        if self.status is None:
            return "cut"
        if self.status != 200:
            return str(self.status)
        return "answered" if self.done else "cut"

    async def exchange(self):
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(self.request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.status = int(head.split(" ", 2)[1])
            for line in head.split("\r\n"):
                if line.lower().startswith("x-probegate-reason:"):
                    self.reason = line.split(":", 1)[1].strip()
            while line := await reader.readline():
                self.take(line)
        finally:
            writer.close()

    def take(self, line):
        """A line of the body; those of a chunk's length are not events."""
        if line.startswith(b"data: [DONE]"):
            self.done = True
        elif line.startswith(b"data: "):
            self.tokens += 1
            self.first = self.first or time.time()


async def watch(name, target, every):
    address, path = target.split("/", 1)
    run = None
    while True:
        exchange = Exchange(address, "GET", "/" + path)
        outcome = await exchange.run(2.0)
        said = str(exchange.status or outcome)
        took = exchange.ended - exchange.begun
        if run is None or run["said"] != said or 10 < exchange.ended - run["from"]:
            if run:
                say(**run)
            run = {"watch": name, "said": said, "from": exchange.ended, "count": 0, "slowest": 0.0}
            say(**run, to=exchange.ended)
        run.update(count=run["count"] + 1, to=exchange.ended, slowest=max(run["slowest"], took))
        await asyncio.sleep(max(0.02, every - took))


async def stream(address, tokens):
    exchange = Exchange(address, "POST", "/v1/completions", completion(tokens))

    async def tell():
        while True:
            say(stream="at", at=time.time(), tokens=exchange.tokens)
            await asyncio.sleep(0.2)

    telling = asyncio.create_task(tell())
    outcome = await exchange.run(3600)
    telling.cancel()
    say(stream=outcome, at=exchange.ended, tokens=exchange.tokens, reason=exchange.reason)


async def ask(address, tokens, patience):
    exchange = Exchange(address, "POST", "/v1/completions", completion(tokens))
    outcome = await exchange.run(patience)
    first = exchange.first and exchange.first - exchange.begun
    say(request=outcome, begun=exchange.begun, ended=exchange.ended, first=first, reason=exchange.reason)


async def traffic(address, rate, tokens, patience, seconds):
    asked = set()
    begun = time.monotonic()
    for turn in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + turn / rate - time.monotonic()))
        if len(asked) < IN_FLIGHT_MAX:
            task = asyncio.create_task(ask(address, tokens, patience))
            asked.add(task)
            task.add_done_callback(asked.discard)
    await asyncio.gather(*asked)


async def capacity(address, clients, tokens, seconds):
    end = time.monotonic() + seconds

    async def one():
        while time.monotonic() < end:
            await ask(address, tokens, 60)

    await asyncio.gather(*(one() for _ in range(clients)))


async def until_told(work, seconds):
    """Runs `work` until it ends, `seconds` have passed, or the standard input has ended."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()

    def read():
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(gone.set)

    # A thread of ours that nobody waits for: the loop's own would keep the process until the input ends.
    threading.Thread(target=read, daemon=True).start()
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone.wait())]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    say(over=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["watch", "stream", "traffic", "capacity"])
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--every", type=float, default=0.2)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--patience", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--for", type=float, default=60.0, dest="seconds")
    a = parser.parse_args()
    address = a.targets[0]

    async def work():
        if a.what == "watch":
            await asyncio.gather(*(watch(*target.split("=", 1), a.every) for target in a.targets))
        elif a.what == "stream":
            await stream(address, a.tokens)
        elif a.what == "traffic":
            await traffic(address, a.rate, a.tokens, a.patience, a.seconds)
        else:
            await capacity(address, a.clients, a.tokens, a.seconds)

    async def bounded():
        # A margin for those that were asked last.
        await until_told(work(), a.seconds + a.patience + 5)

    asyncio.run(bounded())


if __name__ == "__main__":
    main()
