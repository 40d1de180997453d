"""The pictures of the report and of README, drawn from the records: SVG, light or dark as the reader's screen."""

from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 860, 196, 20
STYLE = """
text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 } .group { font-weight: 600 } .quiet { fill: #59636e; font-size: 11px }
.card { fill: #ffffff; stroke: #d1d9e0 } .axis { stroke: #d1d9e0 }
.mark { stroke: #59636e; stroke-dasharray: 3 3 }
.well { fill: #2da44e } .ill { fill: #cf222e } .told { fill: #bf8700 } .gone { fill: #8c959f } .asked { fill: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 } .card { fill: #0d1117; stroke: #3d444d } .axis { stroke: #3d444d }
  .mark { stroke: #9198a1 }
  .well { fill: #3fb950 } .ill { fill: #f85149 } .told { fill: #d29922 } .gone { fill: #6e7681 }
  .asked { fill: #3d444d }
}"""
# What a request's end looks like.
ENDS = {"answered": "well", "silent": "ill", "cut": "ill"}


class Picture:
    """Time from left to right, lanes from top to bottom."""

    def __init__(self, title, zero, begun, ended):
        self.zero, self.begun, self.ended = zero, begun, ended
        self.parts, self.y = [], 40
        self.text(16, 26, title, "title")

    def x(self, at):
        at = min(max(at, self.begun), self.ended)
        return LEFT + (at - self.begun) / (self.ended - self.begun) * (WIDTH - LEFT - RIGHT)

    def text(self, x, y, text, kind="", anchor="start"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def box(self, begun, ended, y, height, kind, least=1.0):
        x = self.x(begun)
        width = max(least, self.x(ended) - x)
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{kind}"/>')

    def group(self, name):
        self.y += 12
        self.text(16, self.y + 10, name, "group")
        self.y += 20

    def lane(self, name, spans, height=12):
        """Spans are (from, to, kind)."""
        self.text(28, self.y + 10, name, "quiet")
        for begun, ended, kind in spans:
            if self.begun <= ended and begun <= self.ended:
                self.box(begun, ended, self.y, height, kind)
        self.y += 18

    def marks(self, marks, top):
        """Vertical lines with a word each, (time, word); on two heights, for they may be close."""
        for turn, (at, word) in enumerate(marks):
            x = self.x(at)
            y = self.y + 14 + 14 * (turn % 2)
            self.parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y - 10:.1f}" class="mark"/>')
            # The first stands before its line, out of the way of the next.
            late = turn == 0 or x > WIDTH - RIGHT - 90
            self.text(x + (-3 if late else 3), y, word, "quiet", "end" if late else "start")
        self.y += 36

    def axis(self, step, word):
        self.parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y}" y2="{self.y}" class="axis"/>')
        at = 0
        while self.zero + at <= self.ended:
            self.text(self.x(self.zero + at), self.y + 14, word(at), "quiet", "middle")
            at += step
        self.y += 24

    def legend(self, entries):
        x = 16
        for kind, word in entries:
            self.parts.append(f'<rect x="{x}" y="{self.y}" width="10" height="10" class="{kind}"/>')
            self.text(x + 15, self.y + 9, word, "quiet")
            x += 15 + 6.2 * len(word) + 14
        self.y += 22

    def svg(self):
        height = self.y + 4
        size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
        card = f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8" class="card"/>'
        return "\n".join([head, f"<style>{STYLE}\n</style>", card, *self.parts, "</svg>", ""])


def said(runs, loss="gone"):
    """Spans of what an endpoint said, each until the next; `loss` is what silence and a refused port look like."""
    kinds = {"200": "well", "503": "ill", "500": "ill"}
    spans = [[run["from"], run["to"], kinds.get(run["said"], loss)] for run in runs]
    for this, following in zip(spans, spans[1:]):
        this[1] = following[0]
    return [tuple(span) for span in spans]


def readiness(changes, ended):
    spans = []
    for change, following in zip(changes, [*changes[1:], {"at": ended}]):
        spans.append((change["at"], following["at"], "well" if change["ready"] else "gone"))
    return spans


def asked(requests):
    """A tick for each request, where it was sent."""
    return [(r["begun"], r["begun"], ENDS.get(r["request"], "told")) for r in requests]


def ticks(picture, name, requests):
    picture.text(28, picture.y + 10, name, "quiet")
    for begun, _, kind in asked(requests):
        if picture.begun <= begun <= picture.ended:
            picture.box(begun, begun, picture.y, 12, kind, least=3.0)
    picture.y += 18


def stopped(record):
    """The two pods side by side, from before the stop until the guarded one serves and one has looked long enough."""
    marks, pods = record["marks"], record["pods"]
    zero = marks["guarded STOP"]
    ended = max(marks["naive CONT"], marks["guarded answered"] or 0)
    picture = Picture("vLLM's engine stopped in mid-stream", zero, zero - 15, ended)
    top = picture.y + 4
    naive, guarded = pods["naive"], pods["guarded"]
    picture.group("vLLM's own probes")
    ticks(picture, "requests", naive["requests"])
    picture.lane("vLLM's /health", said(naive["said"]["own"]))
    picture.lane("the kubelet: Ready", readiness(naive["changes"], ended))
    picture.group("guarded by Probegate")
    ticks(picture, "requests", guarded["requests"])
    picture.lane("vLLM's /health", said(guarded["said"]["own"]))
    picture.lane("Probegate's /health", said(guarded["said"]["health"]))
    picture.lane("the kubelet: Ready", readiness(guarded["changes"], ended))
    words = [
        ("guarded STOP", "stopped"),
        ("guarded found", "found"),
        ("guarded started", "started again"),
        ("guarded answered", "answering"),
    ]
    picture.marks(
        [
            (marks[name], word + (f" {marks[name] - zero:.0f} s" if word != "stopped" else ""))
            for name, word in words
            if marks.get(name)
        ],
        top,
    )
    picture.axis(30, lambda at: f"{at} s")
    picture.legend(
        [
            ("well", "answered, 200, Ready"),
            ("ill", "never answered, 503"),
            ("told", "turned away at once"),
            ("gone", "not Ready, no process"),
        ]
    )
    return picture.svg()


def overload(record):
    """What was asked of both pods and what was answered, and what the kubelet heard."""
    marks, pods = record["marks"], record["pods"]
    begun, ended = marks["load"], marks["over"]
    picture = Picture(
        "Ten minutes at three times the capacity" if ended - begun > 590 else "Three times the capacity",
        begun,
        begun,
        ended,
    )
    for app, name in (("naive", "vLLM's own probes"), ("guarded", "guarded by Probegate")):
        pod = pods[app]
        restarts = record["facts"][f"{app} restarted"]
        picture.group(f"{name}: {restarts} restart" + "s" * (restarts != 1))
        bars(picture, pod["requests"])
        picture.lane("vLLM's /health", said(pod["said"]["own"], "ill"))
        if app == "guarded":
            picture.lane("Probegate's /health", said(pod["said"]["health"], "ill"))
            picture.lane("Probegate's /ready", said(pod["said"]["ready"], "ill"))
        picture.lane("the kubelet: Ready", readiness(pod["changes"], ended))
    picture.y += 4
    picture.axis(60, lambda at: f"{at // 60} min")
    picture.legend(
        [
            ("well", "answered, 200, Ready"),
            ("asked", "asked; its client left after 10 s"),
            ("ill", "503 or nothing"),
            ("gone", "not Ready"),
        ]
    )
    return picture.svg()


def bars(picture, requests, every=15, height=44):
    """For each quarter of a minute how many were asked, and how many of these answered."""
    slots = {}
    for request in requests:
        slot = slots.setdefault(int((request["begun"] - picture.zero) // every), [0, 0])
        slot[0] += 1
        slot[1] += request["request"] == "answered"
    most = max((asked for asked, _ in slots.values()), default=1)
    picture.text(28, picture.y + 12, "requests", "quiet")
    picture.text(28, picture.y + 26, f"up to {most / every:.1f} a second", "quiet")
    for number, (asked, answered) in slots.items():
        begun = picture.zero + number * every
        for count, kind in ((asked, "asked"), (answered, "well")):
            tall = height * count / most
            picture.box(begun, begun + every - 1, picture.y + height - tall, tall, kind)
    picture.y += height + 6


DRAWN = {"stopped": stopped, "overload": overload}
