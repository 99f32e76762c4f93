"""Five models for benches/serving: python models.py FOLDER. Weights are random with fixed seeds, shapes are those of the usual suspects.

Writes FOLDER/models in the gateway's layout, and FOLDER/cases.json with each case's inputs as files.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor

folder = Path(sys.argv[1])
rng = np.random.default_rng(11)
KINDS = {"FP32": (TensorProto.FLOAT, np.float32), "INT64": (TensorProto.INT64, np.int64)}


class Graph:
    """Nodes that are called one after the other; each gives its output's name."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def weight(self, value, kind=np.float32):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def random(self, *shape, spread=None):
        # So that what goes through many layers neither vanishes nor explodes.
        spread = spread or np.sqrt(2.0 / max(1, np.prod(shape[1:]) if len(shape) > 2 else shape[0]))
        return self.weight(rng.normal(0, spread, shape))

    def __call__(self, operator, *inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def model(self, name, inputs, output, width):
        port = lambda name, kind, shape: helper.make_tensor_value_info(name, KINDS[kind][0], ["N", *shape])
        self.nodes.append(helper.make_node("Identity", [output], ["y"]))
        ports = [port(name, kind, shape) for name, kind, shape in inputs]
        graph = helper.make_graph(self.nodes, name, ports, [port("y", "FP32", [width])], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def mlp():
    g = Graph()
    h, wide = "x", 64
    for width in (256, 128):
        h = g("Relu", g("Gemm", h, g.random(wide, width), g.weight(np.zeros(width))))
        wide = width
    h = g("Softmax", g("Gemm", h, g.random(wide, 10), g.weight(np.zeros(10))), axis=1)
    return g, [("x", "FP32", [64])], h, 10


def cnn1d():
    g = Graph()
    h, wide = "x", 1
    for width, kernel, stride in ((16, 16, 8), (32, 8, 4), (64, 4, 2)):
        h = g("Conv", h, g.random(width, wide, kernel), g.weight(np.zeros(width)), strides=[stride], pads=[kernel // 2] * 2)
        h, wide = g("Relu", h), width
    h = g("Flatten", g("GlobalAveragePool", h))
    return g, [("x", "FP32", [1, 2048])], g("Gemm", h, g.random(wide, 10), g.weight(np.zeros(10))), 10


def mobilenet():
    """MobileNetV2 (Sandler et al., 2018), table 2, with batch normalisation folded into the convolutions."""
    g = Graph()

    def convolve(h, wide, width, kernel=1, stride=1, group=1, clip=True):
        w = g.random(width, wide // group, kernel, kernel)
        h = g("Conv", h, w, g.weight(rng.normal(0, 0.1, width)), strides=[stride] * 2, pads=[kernel // 2] * 4, group=group)
        return g("Clip", h, g.weight(0.0), g.weight(6.0)) if clip else h

    h, wide = convolve("x", 3, 32, 3, 2), 32
    for expand, width, count, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):
        for at in range(count):
            stride, inner = first if at == 0 else 1, wide * expand
            b = convolve(h, wide, inner) if expand > 1 else h
            b = convolve(b, inner, inner, 3, stride, inner)
            b = convolve(b, inner, width, clip=False)
            h, wide = g("Add", h, b) if stride == 1 and wide == width else b, width
    h = g("Flatten", g("GlobalAveragePool", convolve(h, wide, 1280)))
    return g, [("x", "FP32", [3, 224, 224])], g("Gemm", h, g.random(1280, 1000), g.weight(np.zeros(1000))), 1000


def minilm(tokens=32, wide=384, heads=12, inner=1536, layers=6, words=4096):
    """MiniLM-L6's shape, with fewer words: how many rows the table has changes nothing but the file's size."""
    g = Graph()
    weight = lambda a, b: g.random(a, b, spread=0.02)

    def normal(h):
        centred = g("Sub", h, g("ReduceMean", h, axes=[-1]))
        spread = g("ReduceMean", g("Pow", centred, g.weight(2.0)), axes=[-1])
        h = g("Div", centred, g("Sqrt", g("Add", spread, g.weight(1e-12))))
        return g("Add", g("Mul", h, g.weight(np.ones(wide))), g.weight(np.zeros(wide)))

    def dense(h, a, b):
        return g("Add", g("MatMul", h, weight(a, b)), g.weight(np.zeros(b)))

    def split(h, order):
        shape = g.weight([0, tokens, heads, wide // heads], np.int64)
        return g("Transpose", g("Reshape", h, shape), perm=order)

    h = g("Gather", g.random(words, wide, spread=0.05), "input_ids")
    h = normal(g("Add", h, g.random(tokens, wide, spread=0.05)))
    given = g("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = g("Unsqueeze", given, g.weight([1, 2], np.int64))
    mask = g("Mul", g("Sub", g.weight(1.0), mask), g.weight(-10000.0))
    for _ in range(layers):
        q, k = split(dense(h, wide, wide), [0, 2, 1, 3]), split(dense(h, wide, wide), [0, 2, 3, 1])
        scores = g("Div", g("MatMul", q, k), g.weight(np.sqrt(wide / heads)))
        seen = g("MatMul", g("Softmax", g("Add", scores, mask), axis=-1), split(dense(h, wide, wide), [0, 2, 1, 3]))
        seen = g("Reshape", g("Transpose", seen, perm=[0, 2, 1, 3]), g.weight([0, tokens, wide], np.int64))
        h = normal(g("Add", h, dense(seen, wide, wide)))
        up = dense(h, wide, inner)
        gelu = g("Mul", g("Mul", up, g("Add", g("Erf", g("Div", up, g.weight(np.sqrt(2)))), g.weight(1.0))), g.weight(0.5))
        h = normal(g("Add", h, dense(gelu, inner, wide)))
    ones = g("Unsqueeze", given, g.weight([2], np.int64))
    total = g("ReduceSum", g("Mul", h, ones), g.weight([1], np.int64), keepdims=0)
    mean = g("Div", total, g("ReduceSum", ones, g.weight([1], np.int64), keepdims=0))
    return g, [("input_ids", "INT64", [tokens]), ("attention_mask", "INT64", [tokens])], mean, wide


def boosting():
    X = rng.normal(size=(4000, 20)).astype(np.float32)
    y = X @ rng.normal(size=20) + np.abs(X[:, 0]) * 2 + rng.normal(size=4000)
    trees = GradientBoostingRegressor(n_estimators=200, max_depth=4, random_state=0).fit(X, y)
    return to_onnx(trees, initial_types=[("x", FloatTensorType([None, 20]))], target_opset={"": 14, "ai.onnx.ml": 3})


def fill(kind, shape, port):
    if port == "attention_mask":
        return np.ones(shape, np.int64)
    return rng.integers(0, 4096, shape) if kind == "INT64" else rng.normal(size=shape).astype(np.float32)


def save(name, model, inputs):
    data = model.SerializeToString()
    version = folder / "models" / name / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(data)
    (version / "manifest.toml").write_text(
        f'[model]\nname = "{name}"\nversion = 1\nfile = "model.onnx"\nsha256 = "{hashlib.sha256(data).hexdigest()}"\n'
        f'format = "onnx"\nlicense = "Apache-2.0 OR MIT"\n')
    for batch in (1, 8):
        given = []
        for port, kind, shape in inputs:
            file = folder / f"{name}.{batch}.{port}.bin"
            fill(kind, [batch, *shape], port).astype(KINDS[kind][1]).tofile(file)
            given.append({"name": port, "datatype": kind, "shape": [batch, *shape], "file": file.name})
        cases.append({"model": name, "batch": batch, "inputs": given})


cases = []
(folder / "models").mkdir(parents=True, exist_ok=True)
save("trees", boosting(), [("x", "FP32", [20])])
for make in (mlp, cnn1d, minilm, mobilenet):
    graph, inputs, output, width = make()
    save(make.__name__, graph.model(make.__name__, inputs, output, width), inputs)
# Written last: what is not whole has none.
(folder / "cases.json").write_text(json.dumps(cases))
