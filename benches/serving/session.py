"""The same models in a Python process without a server: python session.py onnxruntime|openvino FOLDER.

Each line on standard input is {"model", "batch", "seconds"}; the answer is {"latency_us": [...], "cpu_us", "version"} or {"refused"}.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np

runtime, folder = sys.argv[1], Path(sys.argv[2])
KINDS = {"FP32": np.float32, "INT64": np.int64}


def with_onnxruntime(file):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: session.run(names, inputs)


def with_openvino(file):
    import openvino as ov

    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(str(file), "CPU", config).create_infer_request()
    return lambda inputs: request.infer(inputs, share_inputs=True)


def version():
    import importlib.metadata

    return importlib.metadata.version(runtime)


loaded, tables = {}, {}
for case in json.loads((folder / "cases.json").read_text()):
    read = lambda port: np.fromfile(folder / port["file"], KINDS[port["datatype"]]).reshape(port["shape"])
    tables[case["model"], case["batch"]] = {port["name"]: read(port) for port in case["inputs"]}
print(json.dumps({"version": version()}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    model, batch = asked["model"], asked["batch"]
    try:
        if model not in loaded:
            make = {"onnxruntime": with_onnxruntime, "openvino": with_openvino}[runtime]
            loaded[model] = make(folder / "models" / model / "1" / "model.onnx")
        run, inputs = loaded[model], tables[model, batch]
        run(inputs)
    except Exception as error:
        print(json.dumps({"refused": str(error)[:200]}), flush=True)
        continue
    latency_us = []
    cpu, end = time.process_time_ns(), time.perf_counter() + asked["seconds"]
    while len(latency_us) < 3 or time.perf_counter() < end:
        start = time.perf_counter_ns()
        run(inputs)
        latency_us.append((time.perf_counter_ns() - start) / 1000)
    cpu_us = (time.process_time_ns() - cpu) / 1000
    print(json.dumps({"latency_us": latency_us, "cpu_us": cpu_us}), flush=True)
