"""Writes page.png and 1/manifest.toml with its golden sample: python make.py

The pipeline itself, 1/pipeline.toml, is written by hand. With the address of a gateway that serves it, `python make.py
127.0.0.1:8080` measures it instead: pages of fifty digits each, all 1,797 of them, against what the classifier says of the same
digits one by one. Needs the packages in ../requirements.txt.
"""
import hashlib
import json
import pathlib
import struct
import sys
import urllib.request
import zlib

import numpy as np
from sklearn.datasets import load_digits

HERE = pathlib.Path(__file__).parent
data = load_digits()
INK = (data.data / 16).astype(np.float32).reshape(-1, 8, 8)


def page(digits, columns, scale):
    """Digits side by side and line below line, a quarter of a digit of dark paper around each."""
    side, gap = 8 * scale, 2 * scale
    lines = -(-len(digits) // columns)
    paper = np.zeros((gap + lines * (side + gap), gap + columns * (side + gap)), dtype=np.float32)
    for place, digit in enumerate(digits):
        top, left = (gap + at * (side + gap) for at in divmod(place, columns))
        paper[top : top + side, left : left + side] = np.kron(INK[digit], np.ones((scale, scale)))
    return paper


def png(pixels):
    """A grey picture, written by hand: one filter byte a row, all zero."""
    height, width = pixels.shape
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(np.uint8))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def ask(address, model, name, array):
    body = {"inputs": [{"name": name, "shape": array.shape, "datatype": "FP32", "data": array.ravel().tolist()}],
            "outputs": [{"name": "label"}]}
    request = urllib.request.Request(f"http://{address}/v2/models/{model}/infer", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))["outputs"][0]["data"]


def measure(address):
    counted, right, alone = 0, 0, 0
    for first in range(0, len(INK), 50):
        digits = range(first, min(first + 50, len(INK)))
        found = ask(address, "digit-page", "page", page(digits, 10, 4)[None, None])
        single = ask(address, "digits", "X", INK[list(digits)].reshape(-1, 64))
        counted += len(found) == len(digits)
        alone += sum(label == data.target[digit] for label, digit in zip(single, digits))
        if len(found) == len(digits):
            right += sum(label == data.target[digit] for label, digit in zip(found, digits))
    pages = -(-len(INK) // 50)
    print(f"{counted} of {pages} pages have as many digits as were put on them; on those {right} digits are read right; "
          f"one by one {alone} of {len(INK)}")


if len(sys.argv) > 1:
    measure(sys.argv[1])
    sys.exit()

(HERE / "page.png").write_bytes(png(np.round(page(range(10), 5, 8) * 255)))
# What goes in and what must come out: the first two pictures, at two pixels a pixel.
np.save(HERE / "1" / "page.npy", page([0, 1], 2, 2)[None, None])
digest = lambda name: hashlib.sha256((HERE / "1" / name).read_bytes()).hexdigest()
labels = ", ".join(f'"{digit}"' for digit in range(10))
(HERE / "1" / "manifest.toml").write_text(f"""# Written by make.py.
[model]
name = "digit-page"
version = 1
task = "image-classification"
file = "pipeline.toml"
sha256 = "{digest("pipeline.toml")}"
format = "pipeline"
license = "Apache-2.0 OR MIT"
description = "Handwritten digits on a page, light ink on dark paper, that do not touch each other: found, cut out, and read by the model digits"

[[input]]
name = "page"
datatype = "FP32"
shape = [1, 1, -1, -1]
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

[[output]]
name = "boxes"
datatype = "FP32"
shape = [-1, 4]
unit = "pixel"

[[predict.input]]
kind = "image"
colour = "grey"
layout = "NCHW"
steps = [{{ step = "normalise", divide = 255 }}]

[[predict.output]]
name = "digits"
tensor = "label"
steps = ["label"]

[[predict.output]]
name = "boxes"
tensor = "boxes"

[provenance]
script = "models/digit-page/make.py"
models = "digits"

[[golden]]
input = {{ page = {{ file = "page.npy", sha256 = "{digest("page.npy")}" }} }}
output = {{ label = [{data.target[0]}, {data.target[1]}] }}
""")
