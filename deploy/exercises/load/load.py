#!/usr/bin/env python3
"""Load on the demo's model server, open loop: requests start on time, whether or not the earlier ones have ended.

    load.py --target http://ADDRESS --stages 10s:20,60s:100,10s:20 [--batch N] [--timeout S] [--most-failed SHARE] [--p95 MS]

Stages are DURATION:RATE, the rate moving in a straight line from the one before. Each request is a POST /predict with labelled
digits over a connection of its own, so that a Service spreads them over its pods. The last line says what came of it:

    4210 requests, 4210 right, 0 wrong, 0 failed, p50 3 ms, p95 9 ms, p99 21 ms

SIGTERM ends it before its time: nothing more is asked, and what was asked is waited for.

Exit code 1: an answer was wrong, more than --most-failed of them failed, or the p95 is above --p95. load.js is the same load for k6.
"""
import argparse, asyncio, collections, json, signal, sys, time, urllib.parse, urllib.request

IN_FLIGHT_MAX = 2000      # more are counted as failed: a client that cannot keep up must say so
DIGITS = 20
SECONDS_MAX = 3600


def seconds(text):
    units = {"ms": 0.001, "s": 1, "m": 60}
    for unit in ("ms", "s", "m"):
        if text.endswith(unit):
            return float(text[: -len(unit)]) * units[unit]
    raise argparse.ArgumentTypeError(f"{text}: a duration such as 30s")


def stages(text):
    out = []
    for stage in text.split(","):
        duration, _, rate = stage.partition(":")
        out.append((seconds(duration), float(rate)))
    if sum(duration for duration, _ in out) > SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"longer than {SECONDS_MAX} s")
    return out


def due(plan):
    """When each request starts, in seconds from the first."""
    at, rate, owed = 0.0, plan[0][1], 0.0
    step = 0.005
    for duration, goal in plan:
        start = rate
        for tick in range(int(duration / step)):
            owed += (start + (goal - start) * tick * step / duration) * step
            while owed >= 1:
                owed -= 1
                yield at + tick * step
        at, rate = at + duration, goal


def digits(target):
    """Labelled digits: (label, pixels). Asked for as long as the service may take to wake."""
    out = []
    for index in range(DIGITS):
        with urllib.request.urlopen(f"{target}/digits/{index}", timeout=10) as answer:
            digit = json.load(answer)
        out.append((digit["label"], digit["pixels"]))
    return out


def bodies(known, batch):
    """Requests and what their answers must say."""
    out = []
    for first in range(len(known)):
        chosen = [known[(first + n) % len(known)] for n in range(batch)]
        labels = [label for label, _ in chosen]
        out.append((json.dumps({"instances": [pixels for _, pixels in chosen]}).encode(), labels))
    return out


async def ask(host, port, head, body, labels):
    """One request. True or False as its answer is right or wrong; raises if there is none."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(head % len(body) + body)
        answer = await reader.read()
    finally:
        writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    status = top.split(b" ", 2)[1].decode()
    if status != "200":
        reason = [line.split(b":", 1)[1].strip().decode() for line in top.split(b"\r\n") if line.lower().startswith(b"x-probegate-reason:")]
        raise ConnectionError(" ".join([status, *reason]))
    if b"chunked" in top.lower():
        rest = dechunk(rest)
    return [one["label"] for one in json.loads(rest)["predictions"]] == labels


def dechunk(body):
    out = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return out
        out, body = out + body[:length], body[length + 2 :]
    raise ConnectionError("cut off")


async def drive(options, requests):
    url = urllib.parse.urlsplit(options.target)
    host, port = url.hostname, url.port or 80
    head = b"POST /predict HTTP/1.1\r\nhost: %s\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %%d\r\n\r\n" % url.netloc.encode()
    tally, why, took, running = collections.Counter(), collections.Counter(), [], set()

    async def one(number):
        body, labels = requests[number % len(requests)]
        began = time.perf_counter()
        try:
            right = await asyncio.wait_for(ask(host, port, head, body, labels), options.timeout)
            tally["right" if right else "wrong"] += 1
            took.append(time.perf_counter() - began)
        except (OSError, asyncio.TimeoutError, ValueError, IndexError, KeyError) as error:
            tally["failed"] += 1
            why[str(error) if str(error)[:3].isdigit() else type(error).__name__] += 1

    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    began = time.perf_counter()
    for number, at in enumerate(due(options.stages)):
        try:
            await asyncio.wait_for(told.wait(), max(0.0, began + at - time.perf_counter()))
            break
        except asyncio.TimeoutError:
            pass
        if len(running) >= IN_FLIGHT_MAX:
            tally["failed"] += 1
            why["too many in flight"] += 1
            continue
        task = asyncio.create_task(one(number))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return tally, why, sorted(took)


def main():
    ask_for = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask_for.add_argument("--target", required=True)
    ask_for.add_argument("--stages", required=True, type=stages)
    ask_for.add_argument("--batch", type=int, default=1)
    ask_for.add_argument("--timeout", type=float, default=5.0)
    ask_for.add_argument("--most-failed", type=float, default=1.0)
    ask_for.add_argument("--p95", type=float, default=float("inf"))
    options = ask_for.parse_args()

    options.target = options.target.rstrip("/")
    tally, why, took = asyncio.run(drive(options, bodies(digits(options.target), options.batch)))
    total = sum(tally.values())
    if not total:
        sys.exit("load.py: no request was due")

    def at(share):
        return took[min(len(took) - 1, int(len(took) * share))] * 1000 if took else 0.0

    for reason, count in why.most_common(5):
        print(f"failed with {reason}: {count}")
    print(
        f"{total} requests, {tally['right']} right, {tally['wrong']} wrong, {tally['failed']} failed, "
        f"p50 {at(0.5):.0f} ms, p95 {at(0.95):.0f} ms, p99 {at(0.99):.0f} ms"
    )
    kept = tally["wrong"] == 0 and tally["failed"] <= options.most_failed * total and at(0.95) <= options.p95
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
