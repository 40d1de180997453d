#!/usr/bin/env python3
"""Trains the demo's digit classifier and writes what the Rust server embeds.

Writes, next to this script:
  weights.json   a multi-layer perceptron, 64 inputs -> 32 ReLU -> 10 softmax
  test-set.txt   the labelled digits held back from training, one a line

Run it in a throw-away virtual environment; the results are committed, so nobody needs to:

  python3 -m venv /tmp/venv && /tmp/venv/bin/pip install numpy scikit-learn==1.9.1
  /tmp/venv/bin/python demo-model/train.py

The split and the initial weights are seeded: the same versions give the same files.
"""

import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).resolve().parent
SEED = 20
DECIMALS = 4


def main() -> None:
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.data, digits.target, test_size=400, random_state=SEED, stratify=digits.target
    )
    # Pixels are counts of inked sub-pixels, 0 to 16; the server divides by 16 too.
    classifier = MLPClassifier(hidden_layer_sizes=(32,), alpha=1e-3, max_iter=600, random_state=SEED)
    classifier.fit(train_x / 16.0, train_y)

    layers = [
        {"weights": (np.round(w, DECIMALS).T + 0.0).tolist(), "bias": (np.round(b, DECIMALS) + 0.0).tolist()}
        for w, b in zip(classifier.coefs_, classifier.intercepts_)
    ]
    accuracy = round(float(classifier.score(test_x / 16.0, test_y)), 4)
    write_weights(layers, accuracy)
    write_test_set(test_x.astype(int), test_y)
    print(f"test accuracy {accuracy} on {len(test_y)} digits, {len(train_y)} trained on")


def write_weights(layers: list, accuracy: float) -> None:
    """One row of weights a line, so that a diff shows which neuron changed."""
    out = ["{", f'"trained_with": "scikit-learn {sklearn.__version__}, seed {SEED}",']
    out += [f'"test_accuracy": {accuracy},', '"layers": [']
    for index, layer in enumerate(layers):
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in layer["weights"])
        bias = json.dumps(layer["bias"], separators=(",", ":"))
        comma = "," if index + 1 < len(layers) else ""
        out += ['{"weights": [', rows + "],", f'"bias": {bias}}}{comma}']
    out += ["]}", ""]
    (HERE / "weights.json").write_text("\n".join(out))


def write_test_set(pixels: np.ndarray, labels: np.ndarray) -> None:
    """`LABEL PIXELS`: 64 pixels row by row, each one character of base 17 (0-9, a-g)."""
    alphabet = "0123456789abcdefg"
    lines = ["# label, then 64 pixels row by row, each 0 to 16 as one character (0-9, a-g)"]
    lines += [f"{label} {''.join(alphabet[p] for p in row)}" for label, row in zip(labels, pixels)]
    (HERE / "test-set.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
