"""BentoML with a service around ONNX Runtime sessions: python bentoml_onnx.py FOLDER PORT."""

import os
import sys
from pathlib import Path

os.environ.update(ORT_DISABLE_TELEMETRY="1", BENTOML_DO_NOT_TRACK="True")
import bentoml
import numpy as np

KINDS = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


@bentoml.service(workers=1)
class OnnxService:
    def __init__(self):
        import onnxruntime as ort

        self.sessions = {}
        for file in Path(os.environ["FOREBAY_SERVING_FOLDER"]).glob("models/*/1/model.onnx"):
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            kinds = {port.name: KINDS[port.type] for port in session.get_inputs()}
            self.sessions[file.parent.parent.name] = session, kinds

    @bentoml.api
    def infer(self, model: str, inputs: dict[str, list]) -> dict[str, list]:
        session, kinds = self.sessions[model]
        outputs = session.run(None, {name: np.asarray(data, kinds[name]) for name, data in inputs.items()})
        return {port.name: output.tolist() for port, output in zip(session.get_outputs(), outputs)}


if __name__ == "__main__":
    os.environ["FOREBAY_SERVING_FOLDER"] = sys.argv[1]
    os.chdir(Path(__file__).parent)
    os.execv(
        Path(sys.executable).parent / "bentoml",
        ["bentoml", "serve", "bentoml_onnx:OnnxService", "--host", "127.0.0.1", "--port", sys.argv[2]],
    )
