"""A FastAPI model server with one worker that blocks, and every way to hang it.

/predict takes half a second, one at a time, and goes on when its client has left, as most servers do.
"""

import asyncio
import threading
import time

from fastapi import FastAPI, HTTPException
from fastapi.responses import PlainTextResponse, StreamingResponse

app = FastAPI()
worker = threading.Lock()
done = 0
# Answers garbage with a 200; answers nothing but 500.
wrong, failing = False, False


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/metrics")
async def metrics():
    return PlainTextResponse(f"# TYPE predictions counter\npredictions_total {done}\n")


@app.post("/predict")
def predict(ms: int = 500):
    global done
    with worker:
        time.sleep(ms / 1000)
        done += 1
    if failing:
        raise HTTPException(500, "the worker is not healthy")
    return {"label": "garbage" if wrong else "even"}


@app.post("/break")
async def break_it(wrong_answers: bool = False, failures: bool = False):
    global wrong, failing
    wrong, failing = wrong_answers, failures
    return {}


@app.get("/stream")
async def stream(tokens: int = 1000, stall_after: int = 1_000_000):
    async def body():
        global done
        for token in range(tokens):
            if token == stall_after:
                while True:
                    yield ": still here\n\n"
                    await asyncio.sleep(0.5)
            done += 1
            yield f"data: {token}\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(body(), media_type="text/event-stream")


@app.post("/deadlock")
async def deadlock():
    """The worker never gets its lock again; the event loop is well and /health says so."""
    worker.acquire()
    return {}


@app.post("/block")
async def block():
    """The event loop itself is stuck."""
    time.sleep(3600)
