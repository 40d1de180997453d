"""A FastAPI application as people write them: health, inference, a token stream, Prometheus metrics."""

import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest

PREDICTIONS = Counter("app_predictions", "Predictions made")


@asynccontextmanager
async def lifespan(app: FastAPI):
    await asyncio.sleep(1)  # the model loads; uvicorn listens afterwards
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/predict")
async def predict(body: dict):
    PREDICTIONS.inc()
    return {"label": "even" if body["x"] % 2 == 0 else "odd"}


@app.post("/generate")
async def generate(tokens: int = 10):
    async def stream():
        for number in range(tokens):
            yield f"data: token {number}\n\n"
            await asyncio.sleep(0.1)
        yield "data: [DONE]\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.get("/metrics")
async def metrics():
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
