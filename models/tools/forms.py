"""The forms that an int8 model can have.

weights    int8 weights with a scale a channel, dequantised where the model is loaded; activations stay float. No calibration. Every engine
           computes it as fast as the float model and as right as the weights are; a quarter of the file.
qdq        activations and weights through QuantizeLinear and DequantizeLinear: ONNX Runtime, OpenVINO, TensorRT and NPUs make
           integer kernels of it. Needs calibration.
qoperator  QLinearConv and QLinearMatMul: an engine without such a compiler computes in integers, too. Needs calibration.
dynamic    int8 weights, activations quantised by their own range at each request; matrices only. No calibration.
"""
import pathlib
from dataclasses import dataclass

from data import Trouble, need

# Smaller tensors would not get smaller by having a scale.
LEAST_ELEMENTS = 256
# Per-channel scales exist from here on.
LEAST_OPSET = 13


@dataclass
class Form:
    calibrates: bool


FORMS = {"weights": Form(False), "qdq": Form(True), "qoperator": Form(True), "dynamic": Form(False)}


def make(form, model, calibration, scratch):
    """The bytes of the model in this form."""
    onnx = need("onnx", "requirements.txt")
    loaded = onnx.load_from_string(model)
    opset = next((entry.version for entry in loaded.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        try:
            from onnx import version_converter

            loaded = version_converter.convert_version(loaded, LEAST_OPSET)
        except Exception as error:
            raise Trouble(f"the model is of operator set {opset}, int8 needs {LEAST_OPSET}, and it cannot be converted: {error}; export it anew") from error
    prepared = prepare(onnx, loaded, scratch)
    before = count(prepared)
    made = weights(onnx, prepared) if form == "weights" else by_runtime(onnx, form, prepared, calibration, scratch)
    if count(made) == before:
        operators = ", ".join(sorted({node.op_type for node in loaded.graph.node}))
        raise Trouble(
            f"nothing of this model becomes int8 in form {form}: it needs Conv, MatMul or Gemm with {LEAST_ELEMENTS} weights or more, and it has "
            f"{operators}; trees and single linear operators keep their numbers, which are small: serve the float model")
    onnx.checker.check_model(made)
    return made.SerializeToString()


def count(model):
    """Places where something is an integer now."""
    names = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"}
    return sum(node.op_type in names for node in model.graph.node)


def prepare(onnx, model, scratch):
    """Shapes inferred and batch normalisation folded, as the quantiser wants it; the model itself where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    given, path = pathlib.Path(scratch) / "given.onnx", pathlib.Path(scratch) / "prepared.onnx"
    onnx.save(model, given)
    for skip in (False, True):
        try:
            quant_pre_process(str(given), str(path), skip_symbolic_shape=True, skip_optimization=skip)
            prepared = onnx.load(path)
            # Only what every engine has: fused operators of the runtime's own are none of them.
            if all(node.domain in ("", "ai.onnx", "ai.onnx.ml") for node in prepared.graph.node):
                return prepared
        except Exception:
            continue
    return model


def weights(onnx, model):
    """Each large weight as int8 with a scale a channel, behind a DequantizeLinear."""
    import numpy
    from onnx import helper, numpy_helper

    graph = model.graph
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    # Where a weight stands, and the axis of its channels.
    wanted = {}
    for node in graph.node:
        for place, axis in channels(node).items():
            name = node.input[place] if place < len(node.input) else ""
            tensor = initialisers.get(name)
            if tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
                wanted.setdefault(name, axis % len(tensor.dims))
    nodes = []
    for name, axis in wanted.items():
        values = numpy_helper.to_array(initialisers[name])
        if values.size < LEAST_ELEMENTS:
            continue
        others = tuple(at for at in range(values.ndim) if at != axis)
        largest = numpy.abs(values).max(axis=others)
        scale = numpy.where(largest > 0, largest / 127, 1).astype(numpy.float32)
        shape = [-1 if at == axis else 1 for at in range(values.ndim)]
        whole = numpy.clip(numpy.rint(values / scale.reshape(shape)), -127, 127).astype(numpy.int8)
        graph.initializer.remove(initialisers[name])
        zeros = numpy.zeros(scale.shape, numpy.int8)
        for part, array in [("int8", whole), ("scale", scale), ("zero", zeros)]:
            graph.initializer.append(numpy_helper.from_array(array, f"{name}_{part}"))
        inputs = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}_dequantise", axis=axis))
    # Before everything that reads them; a weight that is listed as an input is none any more.
    for node in reversed(nodes):
        graph.node.insert(0, node)
    made = {node.output[0] for node in nodes}
    for value in [value for value in graph.input if value.name in made]:
        graph.input.remove(value)
    return model


def channels(node):
    """The inputs of an operator that may be weights, with the axis of the channels that get a scale each."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return {
        "Conv": {1: 0},
        "ConvTranspose": {1: 1},
        "MatMul": {0: -2, 1: -1},
        "Gemm": {1: 0 if transposed else 1},
        # A table of embeddings: a scale a row.
        "Gather": {0: 0},
    }.get(node.op_type if node.domain in ("", "ai.onnx") else "", {})


def by_runtime(onnx, form, model, calibration, scratch):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.onnx_model import ONNXModel

    class Reader(CalibrationDataReader):
        def __init__(self):
            count = len(next(iter(calibration.values())))
            self.rows = iter({name: values[at : at + 1] for name, values in calibration.items()} for at in range(count))

        def get_next(self):
            return next(self.rows, None)

    path = str(pathlib.Path(scratch) / f"{form}.onnx")
    try:
        if form == "dynamic":
            quantize_dynamic(model, path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
        elif form == "qdq":
            quantize_static(model, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)
        else:
            # Its Gemm would be an operator that only ONNX Runtime has.
            plain = ONNXModel(model)
            plain.replace_gemm_with_matmul()
            quantize_static(plain.model, path, Reader(), quant_format=QuantFormat.QOperator, per_channel=True,
                            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv", "MatMul"])
    except Exception as error:
        raise Trouble(f"onnxruntime.quantization cannot make form {form}: {type(error).__name__}: {error}") from error
    return onnx.load(path)
