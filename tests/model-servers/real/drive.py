"""Guards real model servers with a real sidecar, does to them what happens in production, and says what came of it.

    python3 drive.py [--binary PROBEGATE] [--json FILE] [--only SCENARIO] [--evidence KIND] [--soak MINUTES]
                     [--record FOLDER] [NAME...]

Installs what is missing below target/. Uses loopback and free ports, ends what it started. Exits with 1 if an
expectation was missed or a server could not be installed, 2 on bad usage.
"""

import argparse
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import environment
import guarded
import scenarios
import servers
import soak


def main():
    arguments = parse()
    # So that a driver which is told to end ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    known = {server.name: server for server in servers.SERVERS}
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        print(f"no such server: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        sys.exit(2)
    chosen = [known[name] for name in arguments.names] or list(known.values())
    rows = []
    for server in chosen:
        variants = [True, False] if server.counter else [False]
        if arguments.soak:
            # A long run is made once: by silence alone, which is hardest, or with the counter that a batching server
            # needs, for which half a batch of answers is silence.
            variants = [not server.goes_on]
        if arguments.evidence:
            variants = [counter for counter in variants if counter == (arguments.evidence == "counter")]
        for counter in variants:
            rows += drive(arguments, server, counter)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rows, file, indent=1)
    missed = [row for row in rows if not row["good"]]
    print(table(rows))
    print(f"\n{len(rows) - len(missed)} as expected, {len(missed)} missed", flush=True)
    sys.exit(1 if missed else 0)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--binary", default=os.path.join(environment.ROOT, "target", "quick", "release", "probegate"))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", metavar="SCENARIO", action="append", default=[], help="load is always first")
    parser.add_argument("--evidence", choices=["counter", "silence"], help="one of the two only")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="saturation alone, for so long")
    parser.add_argument("--record", metavar="FOLDER", help="keep what each sidecar recorded, and its file, here")
    return parser.parse_args()


def drive(arguments, server, counter):
    """Every scenario of one server; one that fails to run is a row too."""
    rows = []
    evidence = "counter" if counter else "silence"
    steps = scenarios.of(server)
    if arguments.soak:
        measured = [] if server.goes_on else [scenarios.measure]
        steps = [scenarios.load, *measured, lambda run: soak.saturate(run, arguments.soak * 60)]
    elif arguments.only:
        steps = [step for step in steps if step is scenarios.load or step.__name__ in arguments.only]
    more = soak.CONFIG if arguments.soak and server.goes_on else ""
    try:
        run = guarded.Guarded(arguments.binary, server, counter, more=more, record=arguments.record)
    except (OSError, subprocess.CalledProcessError) as error:
        seen = scenarios.Seen("install", False, "", "", reason=f"{error!r}")
        rows.append({"server": server.name, "evidence": evidence, **dataclasses.asdict(seen)})
        show(rows[-1])
        return rows
    try:
        for step in steps:
            begun = time.monotonic()
            try:
                seen = step(run)
            except Exception as error:  # one broken scenario must not hide the others
                name = getattr(step, "__name__", "soak")
                seen = scenarios.Seen(name, False, "", "", reason=f"the driver failed: {error!r}")
            row = {"server": server.name, "evidence": evidence, **dataclasses.asdict(seen)}
            row["lasted"] = round(time.monotonic() - begun, 1)
            rows.append(row)
            show(row)
            if not seen.good:
                keep(run, server, evidence, seen)
            if seen.scenario == "load" and not seen.good:
                break
    finally:
        run.end()
    return rows


def show(row):
    took = "" if row["took"] is None else f" {row['took']:.2f} s"
    print(f"{'ok ' if row['good'] else 'BAD'} {row['server']} ({row['evidence']}) {row['scenario']}:{took}")
    for name, text in (("own", row["own"]), ("probegate", row["ours"]), ("why", row["reason"])):
        print(f"      {name:9} {text}", flush=True)


def table(rows):
    """What its own health said, what Probegate said, and when, a line each."""
    lines = [("server", "evidence", "done to it", "its own health", "/health", "/ready", "seconds", "")]
    for row in rows:
        health, _, ready = row["ours"].partition("; ")
        own = words(row["own"].partition("; ")[0])
        took = "" if row["took"] is None else f"{row['took']:.1f}"
        good = "" if row["good"] else "MISSED"
        said = (own, words(health), words(ready), took, good)
        lines.append((row["server"], row["evidence"], row["scenario"], *said))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n" + "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def words(said):
    """ "/health refused x3, 200 x8 (max 9 ms)" is "refused, 200"."""
    return ", ".join(re.findall(r"(\w+) x\d+", said))


def keep(run, server, evidence, seen):
    """The logs of a missed expectation, for whoever looks into it."""
    name = f"{server.name}-{evidence}-{seen.scenario}".replace(" ", "-").replace(",", "")
    folder = os.path.join(environment.HOME, "missed", name)
    os.makedirs(folder, exist_ok=True)
    for kind, text in (("sidecar", run.log_tail(2000)), ("server", run.server_log_tail(2000))):
        with open(os.path.join(folder, f"{kind}.log"), "w") as file:
            file.write(text)
    print(f"      logs      {os.path.relpath(folder, environment.ROOT)}", flush=True)


if __name__ == "__main__":
    main()
