"""Trains the models that benches/engines.rs measures, and measures ONNX Runtime on them: CPU time, one thread.

    python benches/engines.py FOLDER
"""

import json
import os
import pathlib
import sys
import time
import warnings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
warnings.filterwarnings("ignore")
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

OUT = pathlib.Path(sys.argv[1])
OUT.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(3)
FEATURES = 20
X = rng.normal(size=(4000, FEATURES)).astype(np.float32)
signal = X @ rng.normal(size=FEATURES) + np.abs(X[:, 0]) * 2 + rng.normal(size=4000)
two, three = (signal > 0).astype(int), np.digitize(signal, [-2, 2])
models = {
    "forest 100 x 10, 2 classes": RandomForestClassifier(100, max_depth=10, random_state=0).fit(X, two),
    "forest 100 x 10, 3 classes": RandomForestClassifier(100, max_depth=10, random_state=0).fit(X, three),
    "forest 100 x 10, regression": RandomForestRegressor(100, max_depth=10, random_state=0).fit(X, signal),
    "forest 100, grown out, 3 classes": RandomForestClassifier(100, random_state=0).fit(X, three),
    "boosting 200 x 4": GradientBoostingRegressor(n_estimators=200, max_depth=4, random_state=0).fit(X, signal),
    "scaler and logistic regression": make_pipeline(StandardScaler(), LogisticRegression()).fit(X, three),
}
identity = helper.make_model(
    helper.make_graph([helper.make_node("Identity", ["X"], ["Y"])], "identity",
                      [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, FEATURES])],
                      [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, FEATURES])]),
    ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def session(data):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def least_us(call, rounds):
    """The least of five measurements: the machine is never quieter than it is."""
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for at in range(rounds):
            call(at)
        best = min(best, (time.process_time() - start) / rounds * 1e6)
    return best


def measure(data):
    run, names = session(data), None
    names = [out.name for out in run.get_outputs()]
    found = {}
    for batch in (1, 8, 1000):
        tables = [np.ascontiguousarray(X[at * 4 % (4000 - batch):][:batch]) for at in range(64)]
        rounds = {1: 4000, 8: 2000, 1000: 60}[batch]
        plain = least_us(lambda at: run.run(names, {"X": tables[at % 64]}), rounds)
        # Bound memory leaves out what Python does with inputs and outputs.
        bindings = []
        for table in tables:
            binding = run.io_binding()
            binding.bind_cpu_input("X", table)
            for name in names:
                binding.bind_output(name)
            bindings.append(binding)
        bound = least_us(lambda at: run.run_with_iobinding(bindings[at % 64]), rounds)
        found[str(batch)] = {"run": plain, "bound": bound}
    return found


X.tofile(OUT / "X.bin")
told = {"features": FEATURES, "onnxruntime": ort.__version__, "nothing": measure(identity.SerializeToString()), "models": []}
for at, (name, model) in enumerate(models.items()):
    options = {"zipmap": False} if hasattr(model, "classes_") else {}
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    converted = to_onnx(model, initial_types=[("X", FloatTensorType([None, FEATURES]))],
                        options={id(model): options} if options else None, target_opset={"": 18, "ai.onnx.ml": 3})
    data = converted.SerializeToString()
    (OUT / f"{at}.onnx").write_bytes(data)
    told["models"].append({"name": name, "file": f"{at}.onnx", "bytes": len(data), "reference": measure(data)})
(OUT / "models.json").write_text(json.dumps(told))
