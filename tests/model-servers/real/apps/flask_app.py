"""A Flask model server for gunicorn's sync worker: one request at a time, whoever asks, its own health included."""

import time

from flask import Flask, request
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest

PREDICTIONS = Counter("predictions", "Predictions made")

app = Flask(__name__)


@app.get("/health")
def health():
    return {"status": "ok"}


@app.get("/metrics")
def metrics():
    return generate_latest(), 200, {"Content-Type": CONTENT_TYPE_LATEST}


@app.post("/predict")
def predict():
    time.sleep(float(request.args.get("ms", 500)) / 1000)
    PREDICTIONS.inc()
    return {"label": "even"}
