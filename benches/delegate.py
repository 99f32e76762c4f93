"""Models for benches/delegate.rs: python delegate.py FOLDER. Weights are random, sizes are those of the usual suspects."""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

folder = Path(sys.argv[1])
rng = np.random.default_rng(7)


def save(name, nodes, weights, shape_in, shape_out):
    port = lambda port, shape: helper.make_tensor_value_info(port, TensorProto.FLOAT, shape)
    weights = [numpy_helper.from_array(value.astype(np.float32), key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, [port("x", shape_in)], [port("y", shape_out)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / f"{name}.onnx")


def weight(*shape):
    return rng.normal(0, 0.5 / np.sqrt(np.prod(shape[1:])), shape)


save(
    "mlp 64-8-64",
    [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ],
    {"a": weight(64, 8), "b": weight(8, 64)},
    [1, 64],
    [1, 64],
)


def tower(name, blocks, channels, size):
    """Depthwise separable blocks, as in MobileNet."""
    nodes, weights, last, wide = [], {"w": weight(channels, 3, 3, 3)}, "s", channels
    nodes.append(helper.make_node("Conv", ["x", "w"], ["s"], pads=[1, 1, 1, 1], strides=[2, 2]))
    for block in range(blocks):
        names = [f"{letter}{block}" for letter in "dpqr"]
        weights[f"wd{block}"], weights[f"wp{block}"] = weight(wide, 1, 3, 3), weight(wide, wide, 1, 1)
        nodes += [
            helper.make_node("Conv", [last, f"wd{block}"], [names[0]], pads=[1, 1, 1, 1], group=wide),
            helper.make_node("Relu", [names[0]], [names[1]]),
            helper.make_node("Conv", [names[1], f"wp{block}"], [names[2]]),
            helper.make_node("Relu", [names[2]], [names[3]]),
        ]
        last = names[3]
    nodes += [helper.make_node("GlobalAveragePool", [last], ["g"]), helper.make_node("Flatten", ["g"], ["f"])]
    nodes.append(helper.make_node("MatMul", ["f", "head"], ["y"]))
    weights["head"] = weight(wide, 1000)
    save(name, nodes, weights, [1, 3, size, size], [1, 1000])


tower("cnn 64x64, 4 blocks", 4, 32, 64)
tower("cnn 224x224, 8 blocks", 8, 64, 224)

# Much in, much out, little in between: what the copies cost.
save("identity 1 MiB", [helper.make_node("Relu", ["x"], ["y"])], {}, [1, 262144], [1, 262144])
