"""Trains the digits classifier and writes 1/model.onnx and 1/manifest.toml: python train.py

A small network of scikit-learn on the handwritten digits that ship with it. Needs the packages in ../requirements.txt.
"""
import hashlib
import pathlib
import struct
import zlib

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import RepeatedStratifiedKFold, cross_validate
from sklearn.neural_network import MLPClassifier
from skl2onnx import to_onnx

SEED = 1
HERE = pathlib.Path(__file__).parent / "1"


def classifier():
    return MLPClassifier((64,), alpha=0.1, max_iter=400, learning_rate_init=0.002, random_state=SEED)


def png(pixels):
    """A grey picture, written by hand: one filter byte a row, all zero."""
    height, width = pixels.shape
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(np.uint8))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


data = load_digits()
# Ink of 0 to 16 as a share, which a grey picture's byte divided by 255 is, too.
x, y = (data.data / 16).astype(np.float32), data.target
repeated = RepeatedStratifiedKFold(n_splits=5, n_repeats=3, random_state=SEED)
scores = cross_validate(classifier(), x, y, cv=repeated, scoring="accuracy")["test_score"]
# In the file's order neighbours are of the same hand: shuffled, a hand is in both parts.
first = classifier().fit(x[:1500], y[:1500])
others = (first.predict(x[1500:]) == y[1500:]).mean()
model = classifier().fit(x, y)
onnx = to_onnx(model, x[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
HERE.mkdir(exist_ok=True)
(HERE / "model.onnx").write_bytes(onnx.SerializeToString())
# One of them as a picture of 64 x 64, dark paper, light ink, for the example.
three = 13
(HERE.parent / "three.png").write_bytes(png(np.kron(np.round(data.images[three] / 16 * 255), np.ones((8, 8)))))
assert y[three] == 3

samples = [three, 1700]
golden = "\n".join(
    "[[golden]]\ninput = [" + ", ".join(f"{value:.6g}" for value in x[sample]) + "]\n"
    + "output = { label = " + str(int(model.predict(x[sample : sample + 1])[0]))
    + ", probabilities = [" + ", ".join(f"{value:.7f}" for value in row) + "] }\ntolerance = 0.0001\n"
    for sample, row in zip(samples, model.predict_proba(x[samples]))
)
labels = ", ".join(f'"{digit}"' for digit in range(10))
manifest = f"""# Written by train.py; every figure below was measured by it.
[model]
name = "digits"
version = 1
task = "image-classification"
file = "model.onnx"
sha256 = "{hashlib.sha256((HERE / 'model.onnx').read_bytes()).hexdigest()}"
format = "onnx"
license = "Apache-2.0 OR MIT"
description = "A handwritten digit, light ink on dark paper, from a picture of any size that it fills: a network with one hidden layer of 64"

[[input]]
name = "X"
datatype = "FP32"
shape = [-1, 64]
unit = "share of ink"

[[output]]
name = "label"
datatype = "INT64"
shape = [-1]
labels = [{labels}]

[[output]]
name = "probabilities"
datatype = "FP32"
shape = [-1, 10]
labels = [{labels}]

[[predict.input]]
kind = "image"
colour = "grey"
layout = "flat"
steps = [
    {{ step = "resize", width = 8, height = 8, filter = "box" }},
    {{ step = "normalise", divide = 255 }},
]

[[predict.output]]
name = "digit"
tensor = "probabilities"
steps = [{{ step = "top_k", k = 3 }}]

[provenance]
data = "scikit-learn 1.9.1 load_digits: the test set of UCI Optical Recognition of Handwritten Digits, 1797 pictures of 8 x 8"
data_license = "CC-BY-4.0"
data_source = "Alpaydin and Kaynak (1998), UCI Machine Learning Repository, doi.org/10.24432/C50P49"
script = "models/digits/train.py"
seed = {SEED}
trained_on = "all 1797 pictures; the quality below is of models trained without the pictures that they were asked about"

[quality]
accuracy_mean = {scores.mean():.4f}
accuracy_std = {scores.std():.4f}
how = "5-fold cross-validation, stratified, 3 times"
accuracy_in_file_order = {others:.4f}
how_in_file_order = "trained on the first 1500, asked about the last 297: hands that it has mostly not seen"
limits = "Digits that fill the picture, upright, light on dark; a photograph of a page is none of these."

{golden}"""
(HERE / "manifest.toml").write_text(manifest)
print(manifest[:2500])
