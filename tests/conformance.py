"""Prepares the ONNX project's backend node tests for the suite.

    python tests/conformance.py FOLDER

Reads the data that the wheel of onnx 1.17 brings (tests/tools.sh puts it beside the environment of this interpreter;
FOREBAY_ONNX_NODE_TESTS names another folder of test_* folders). Each FOLDER/<case>/ gets model.onnx and case.json with the
inputs and outputs; tensors lie beside it in the protocol's binary form. In the model, what a real file has as a constant (weights,
axes, shapes, scales) is one. Training is left out. A case whose inputs or outputs the protocol has no words for gets a case.json
that says so.
"""

import json
import os
import pathlib
import sys

try:
    import numpy as np
    import onnx
    from onnx import TensorProto, numpy_helper
except ImportError as error:
    sys.exit(f"{error}: make tools-test installs what is needed; name the interpreter in FOREBAY_PYTHON")

GIVEN = os.environ.get("FOREBAY_ONNX_NODE_TESTS")
DATA = pathlib.Path(GIVEN or pathlib.Path(sys.prefix).parent / "onnx-1.17.0/onnx/backend/test/data/node")
if not DATA.is_dir():
    sys.exit(f"{DATA} is not there: make tools-test puts it there; name another place in FOREBAY_ONNX_NODE_TESTS")
OUT = pathlib.Path(sys.argv[1])
WORDS = {1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES", 9: "BOOL",
         10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64"}

REST = range(1, 16)
# By operator: which inputs are constants in the files that exporters write.
CONSTANTS = {
    "AffineGrid": [1], "BatchNormalization": REST, "BlackmanWindow": [0], "CenterCropPad": [1], "Clip": [1, 2], "Col2Im": [1, 2],
    "ConstantOfShape": [0], "Conv": [1, 2], "ConvInteger": [1, 2, 3], "ConvTranspose": [1, 2], "CumSum": [1],
    "DFT": [1, 2], "DeformConv": [1, 3], "DequantizeLinear": [1, 2], "Dropout": [1, 2], "Expand": [1], "GRU": [1, 2, 3],
    "GroupNormalization": [1, 2], "HammingWindow": [0], "HannWindow": [0], "InstanceNormalization": [1, 2], "LSTM": [1, 2, 3, 7],
    "LayerNormalization": [1, 2], "MatMulInteger": [1, 2, 3], "MaxUnpool": [2], "MelWeightMatrix": range(0, 5),
    "NonMaxSuppression": [2, 3, 4], "OneHot": [1, 2], "PRelu": [1], "Pad": [1, 2, 3], "QLinearConv": REST,
    "QLinearMatMul": [1, 2, 4, 5, 6, 7], "QuantizeLinear": [1, 2], "RNN": [1, 2, 3], "Range": [0, 1, 2], "Reshape": [1],
    "Resize": [1, 2, 3], "STFT": [1, 2, 3], "Slice": [1, 2, 3, 4], "Split": [1], "SplitToSequence": [1], "Squeeze": [1],
    "Tile": [1], "TopK": [1], "Trilu": [1], "Unsqueeze": [1], "Upsample": [1],
}
for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
    CONSTANTS[f"Reduce{name}"] = [1]


def is_training(name, model):
    """Losses compute, and are kept; what changes weights is not."""
    domains = {node.domain for node in model.graph.node}
    return name.startswith("test_training_") or name.endswith("_training_mode") or "ai.onnx.preview.training" in domains


def constants(model):
    """Names of the inputs that every node using them has as a constant."""
    used = {}
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            used.setdefault(name, []).append(at in CONSTANTS.get(node.op_type, ()) and not node.domain)
    return {name for name, all_of_them in used.items() if name and all(all_of_them)}


def tensor(folder, file, given):
    """Writes a TensorProto in the protocol's form and says what it is."""
    array = numpy_helper.to_array(given)
    if given.data_type == TensorProto.STRING:
        texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.ravel()]
        data = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    else:
        data = np.ascontiguousarray(array).tobytes()
    (folder / file).write_bytes(data)
    return {"file": file, "datatype": WORDS[given.data_type], "shape": list(array.shape)}


def read(path):
    return TensorProto.FromString(path.read_bytes())


def write(source):
    model = onnx.load(source / "model.onnx")
    if is_training(source.name, model):
        return
    folder = OUT / source.name
    folder.mkdir(parents=True)
    ports = [*model.graph.input, *model.graph.output]
    kinds = {port.type.WhichOneof("value") for port in ports} - {"tensor_type"}
    types = {port.type.tensor_type.elem_type for port in ports} - set(WORDS) if not kinds else set()
    if kinds or types:
        words = sorted(kind.removesuffix("_type") for kind in kinds) + sorted(TensorProto.DataType.Name(t) for t in types)
        (folder / "case.json").write_text(json.dumps({"beyond": ", ".join(words)}))
        return
    fixed = constants(model)
    if all(port.name in fixed for port in model.graph.input):
        fixed = set()
    sets = sorted(source.glob("test_data_set_*"))
    if len(sets) > 1:
        fixed = set()
    kept = []
    for at, port in enumerate(model.graph.input):
        if port.name in fixed:
            value = read(sets[0] / f"input_{at}.pb")
            value.name = port.name
            model.graph.initializer.append(value)
        else:
            kept.append((at, port))
    del model.graph.input[:]
    model.graph.input.extend(port for _, port in kept)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    told = []
    for number, data in enumerate(sets):
        inputs = {port.name: tensor(folder, f"{number}.{at}.in", read(data / f"input_{at}.pb")) for at, port in kept}
        outputs = {port.name: tensor(folder, f"{number}.{at}.out", read(data / f"output_{at}.pb"))
                   for at, port in enumerate(model.graph.output)}
        told.append({"inputs": inputs, "outputs": outputs})
    (folder / "case.json").write_text(json.dumps({"batches": told}))


for source in sorted(DATA.iterdir()):
    write(source)
