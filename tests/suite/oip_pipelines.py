"""A pipeline over NVIDIA's own clients, written into the models folder of a running gateway: HTTP_ADDRESS GRPC_ADDRESS MODELS_FOLDER."""

import hashlib
import json
import pathlib
import sys

try:
    import numpy as np
    import tritonclient.grpc as tg
    import tritonclient.http as th
    from tritonclient.utils import InferenceServerException
except ImportError as error:
    sys.exit(f"{error}: python3 -m pip install 'tritonclient[http,grpc]==2.73.0', and name the interpreter in FOREBAY_PYTHON")

http_address, grpc_address, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
STEPS = """
[[step]]
name = "first"
model = "simple"
input = { INPUT0 = "a", INPUT1 = "b" }
[[step]]
name = "second"
model = "simple"
input = { INPUT0 = "first.OUTPUT0", INPUT1 = "first.OUTPUT1" }
[output]
twice = "second.OUTPUT0"
"""
port = lambda kind, name: f'[[{kind}]]\nname = "{name}"\ndatatype = "INT32"\nshape = [-1, 16]\n'
place = folder / "twice" / "1"
place.mkdir(parents=True)
(place / "pipeline.toml").write_text(STEPS)
(place / "manifest.toml").write_text(
    '[model]\nname = "twice"\nversion = 1\nfile = "pipeline.toml"\nformat = "pipeline"\nlicense = "MIT"\n'
    f'sha256 = "{hashlib.sha256(STEPS.encode()).hexdigest()}"\n'
    + port("input", "a") + port("input", "b") + port("output", "twice")
)
a = np.arange(32, dtype=np.int32).reshape(2, 16)
b = np.full((2, 16), 7, dtype=np.int32)


def refused(says, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except InferenceServerException as error:
        assert says in error.message(), f"expected {says!r} in {error.message()!r}"
    else:
        raise AssertionError(f"nothing was refused; expected {says!r}")


def fields(message):
    """A message's fields in the wire format, numbers and bytes, whatever their names are."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        value = number()
        if key & 7 == 2:
            value, at = message[at : at + value], at + value
        else:
            assert key & 7 == 0, key
        yield key >> 3, value


def inputs(kind):
    given = []
    for name, array in (("a", a), ("b", b)):
        given.append(kind.InferInput(name, list(array.shape), "INT32"))
        given[-1].set_data_from_numpy(array)
    return given


http, grpc = th.InferenceServerClient(http_address), tg.InferenceServerClient(grpc_address)
grpc.load_model("twice")
for client, kind in ((http, th), (grpc, tg)):
    assert client.is_model_ready("twice")
    # (a + b) + (a - b)
    result = client.infer("twice", inputs(kind), parameters={"forebay_steps": True})
    np.testing.assert_array_equal(result.as_numpy("twice"), 2 * a)

told = result.get_response().parameters["forebay_steps"].string_param
assert [(step["step"], step["model"], step["rows"]) for step in json.loads(told)] == [
    ("first", "simple/1", 2), ("second", "simple/1", 2)], told
metadata = grpc.get_model_metadata("twice", as_json=True)
assert (metadata["platform"], metadata["inputs"][1]["name"]) == ("pipeline", "b"), metadata
config = http.get_model_config("twice")
assert config["ensemble_scheduling"]["step"][1]["input_map"] == {"INPUT0": "first.OUTPUT0", "INPUT1": "first.OUTPUT1"}
told = grpc.get_model_config("twice", as_json=True)["config"]
assert told["name"] == "twice" and "dynamic_batching" not in told, told
assert [(step["model_name"], step["model_version"], step["input_map"], step["output_map"]) for step in told["ensemble_scheduling"]["step"]] == [
    (step["model_name"], str(step["model_version"]), step["input_map"], step["output_map"]) for step in config["ensemble_scheduling"]["step"]], told
statistics = grpc.get_inference_statistics("twice").model_stats[0]
assert (statistics.inference_count, statistics.execution_count) == (4, 2), statistics
# Steps are Forebay's own field, which this client passes on without knowing it.
own = [(number, value) for number, value in fields(statistics.SerializeToString()) if number == 1000]
assert [dict(fields(step))[1] for _, step in own] == [b"first", b"second"], own
assert [dict(fields(dict(fields(step))[4]))[1] for _, step in own] == [2, 2], own
steps = http.get_inference_statistics("twice")["model_stats"][0]["pipeline_steps"]
assert [step["success"]["count"] for step in steps] == [2, 2], steps

wrong = tg.InferInput("a", [2, 15], "INT32")
wrong.set_data_from_numpy(a[:, 1:])
refused("pipeline twice/1: input a has shape [2, 15], expected [-1, 16]", grpc.infer, "twice", [wrong, inputs(tg)[1]])
grpc.unload_model("simple")
assert not grpc.is_model_ready("twice") and not http.is_model_ready("twice")
refused("step first: model simple/1 does not serve: it was unloaded", grpc.infer, "twice", inputs(tg))
http.load_model("simple")
np.testing.assert_array_equal(http.infer("twice", inputs(th)).as_numpy("twice"), 2 * a)

# Whoever says so takes the pipelines that ask a model away with it; they stay away until they are loaded.
for client, kind in ((http, th), (grpc, tg)):
    client.unload_model("simple", unload_dependents=True)
    client.load_model("simple")
    assert client.is_model_ready("simple") and not client.is_model_ready("twice")
    refused("it was unloaded", client.infer, "twice", inputs(kind))
    client.load_model("twice")
    np.testing.assert_array_equal(client.infer("twice", inputs(kind)).as_numpy("twice"), 2 * a)
    client.unload_model("simple", unload_dependents=False)
    client.load_model("simple")
    assert client.is_model_ready("twice"), "it was not asked for"
