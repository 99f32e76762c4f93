"""MLServer with a runtime around an ONNX Runtime session, as its documentation makes one: python mlserver_onnx.py FOLDER PORT WORKERS."""

import json
import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = self.session.run(self.names, {each.name: NumpyCodec.decode_input(each) for each in payload.inputs})
        encoded = [NumpyCodec.encode_output(name, output) for name, output in zip(self.names, outputs)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=encoded)


if __name__ == "__main__":
    folder, port, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    home = folder / "mlserver"
    for file in sorted((folder / "models").glob("*/1/model.onnx")):
        name = file.parent.parent.name
        (home / name).mkdir(parents=True, exist_ok=True)
        told = {"name": name, "implementation": "mlserver_onnx.OnnxModel", "parameters": {"uri": str(file), "version": "1"}}
        (home / name / "model-settings.json").write_text(json.dumps(told))
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_endpoint": None, "debug": False,
        "parallel_workers": workers, "grpc_max_message_length": 1 << 28, "use_structured_logging": False,
    }
    (home / "settings.json").write_text(json.dumps(settings))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    os.execv(Path(sys.executable).parent / "mlserver", ["mlserver", "start", str(home)])
