"""Triton's extensions through NVIDIA's own clients, as their example programs use them: HTTP_ADDRESS GRPC_ADDRESS MODELS_FOLDER."""

import concurrent.futures
import gzip
import json
import os
import sys
import urllib.error
import urllib.request
import zlib

try:
    import numpy as np
    import tritonclient.grpc as tg
    import tritonclient.http as th
    import tritonclient.utils.shared_memory as shm
    from tritonclient.grpc import service_pb2, service_pb2_grpc
    from tritonclient.utils import (
        InferenceServerException,
        deserialize_bytes_tensor,
        serialize_byte_tensor,
        serialized_byte_size,
        triton_to_np_dtype,
    )
    import grpc as gcrpc
except ImportError as error:
    sys.exit(f"{error}: python3 -m pip install 'tritonclient[http,grpc]==2.73.0', and name the interpreter in FOREBAY_PYTHON")

http_address, grpc_address = sys.argv[1], sys.argv[2]
A, B = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), dtype=np.int32)
KINDS = ((th, http_address), (tg, grpc_address))


def key(name):
    """Of a region: the machine has one folder for all of them."""
    return f"/{name}_{os.getpid()}"


def path_of(name):
    return f"/dev/shm{key(name)}"


def texts(array):
    return np.array([str(value).encode() for value in array.ravel()], dtype=np.object_).reshape(array.shape)


def refused(says, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except InferenceServerException as error:
        assert says in error.message(), f"expected {says!r} in {error.message()!r}"
        return error
    raise AssertionError(f"nothing was refused; expected {says!r}")


def given(kind, name, array, datatype, **how):
    tensor = kind.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **how)
    return tensor


def raw(path, body=b"", headers=(), method="POST"):
    """Status, headers and body of a request as it is."""
    headers = {"content-type": "application/json", **dict(headers)}
    request = urllib.request.Request(f"http://{http_address}{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def strings():
    for kind, address in KINDS:
        client = kind.InferenceServerClient(address)
        hows = ({"binary_data": True}, {"binary_data": False}) if kind is th else ({},)
        for how in hows:
            outputs = [kind.InferRequestedOutput(name, **how) for name in ("OUTPUT0", "OUTPUT1")]
            result = client.infer(
                "simple_string", [given(kind, "INPUT0", texts(A), "BYTES", **how), given(kind, "INPUT1", texts(B), "BYTES")], outputs=outputs
            )
            for name, expected in (("OUTPUT0", A + B), ("OUTPUT1", A - B)):
                assert (np.array([int(text) for text in result.as_numpy(name)[0]]) == expected[0]).all(), (kind, how)
            nulls = np.array(["he\x00llo".encode()] * 16, dtype=np.object_).reshape(1, 16)
            blobs = np.array([b"\x00\x01\x02\x03"] * 16, dtype=np.bytes_).reshape(1, 16)
            for array in (nulls, blobs):
                result = client.infer(
                    "simple_identity", [given(kind, "INPUT0", array, "BYTES", **how)], outputs=[kind.InferRequestedOutput("OUTPUT0", **how)]
                )
                answer = result.as_numpy("OUTPUT0").ravel()
                answer = [text if isinstance(text, bytes) else text.encode() for text in answer]
                assert answer == [bytes(text) for text in array.ravel()], (kind, how, answer)
        word = np.array([b"seven"] * 16, dtype=np.object_).reshape(1, 16)
        refused("\"seven\" is no number", client.infer, "simple_string", [given(kind, "INPUT0", word, "BYTES"), given(kind, "INPUT1", texts(B), "BYTES")])
        client.close()


def small_numbers_by_hand():
    """Requests that are built from the protocol's messages, element by element."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(gcrpc.insecure_channel(grpc_address))
    for model, datatype in (("simple_int8", "INT8"), ("simple_string", "BYTES")):
        request = service_pb2.ModelInferRequest(model_name=model, id="by hand")
        for name, array in (("INPUT0", A), ("INPUT1", B)):
            tensor = service_pb2.ModelInferRequest().InferInputTensor(name=name, datatype=datatype, shape=[1, 16])
            if datatype == "INT8":
                tensor.contents.int_contents[:] = array.ravel().tolist()
            else:
                tensor.contents.bytes_contents.extend(texts(array).ravel().tolist())
            request.inputs.extend([tensor])
        response = stub.ModelInfer(request)
        assert [(output.name, output.datatype, list(output.shape)) for output in response.outputs] == [
            ("OUTPUT0", datatype, [1, 16]),
            ("OUTPUT1", datatype, [1, 16]),
        ], response.outputs
        for content, expected in zip(response.raw_output_contents, (A + B, A - B)):
            read = np.frombuffer(content, np.int8) if datatype == "INT8" else [int(text) for text in deserialize_bytes_tensor(content)]
            assert (np.array(read) == expected.ravel()).all(), (model, read)
    client = th.InferenceServerClient(http_address)
    small = [given(th, name, array.astype(np.int8), "INT8") for name, array in (("INPUT0", A), ("INPUT1", B))]
    assert (client.infer("simple_int8", small).as_numpy("OUTPUT1") == A - B).all()
    client.close()


def shared_memory():
    """Inputs in one region at two offsets, outputs in another; then texts, and the same objects with and without regions."""
    size = A.nbytes
    for kind, address in KINDS:
        client = kind.InferenceServerClient(address)
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
        out = shm.create_shared_memory_region("output_data", key("output_simple"), size * 2)
        client.register_system_shared_memory("output_data", key("output_simple"), size * 2)
        into = shm.create_shared_memory_region("input_data", key("input_simple"), size * 2)
        shm.set_shared_memory_region(into, [A, B])
        client.register_system_shared_memory("input_data", key("input_simple"), size * 2)
        inputs = [kind.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
        outputs = [kind.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]
        for at in range(2):
            inputs[at].set_shared_memory("input_data", size, offset=size * at)
            outputs[at].set_shared_memory("output_data", size, offset=size * at)
        result = client.infer("simple", inputs, outputs=outputs)
        for at, expected in enumerate((A + B, A - B)):
            told = result.get_output(f"OUTPUT{at}")
            told = told if kind is th else {"datatype": told.datatype, "shape": list(told.shape)}
            assert "data" not in told, told
            read = shm.get_contents_as_numpy(out, triton_to_np_dtype(told["datatype"]), told["shape"], offset=size * at)
            assert (read == expected).all(), (kind, at, read)
        # One of each: an input with the request, an output with the answer.
        inputs[1].set_data_from_numpy(B * 2)
        outputs[0].unset_shared_memory()
        result = client.infer("simple", inputs, outputs=outputs)
        assert (result.as_numpy("OUTPUT0") == A + 2 * B).all()
        assert (shm.get_contents_as_numpy(out, np.int32, [1, 16], offset=size) == A - 2 * B).all()
        status = client.get_system_shared_memory_status()
        names = [region["name"] for region in status] if kind is th else sorted(status.regions)
        assert sorted(names) == ["input_data", "output_data"], status
        one = client.get_system_shared_memory_status("input_data")
        one = one[0] if kind is th else one.regions["input_data"]
        told = (one["key"], one["byte_size"]) if kind is th else (one.key, one.byte_size)
        assert told == (key("input_simple"), size * 2), one

        refused("it has 64 bytes, its place in region \"output_data\" 8", client.infer, "simple", inputs, outputs=placed(kind, "output_data", 8))
        refused("has 128 bytes, asked for 64 from 65 on", client.infer, "simple", inputs, outputs=placed(kind, "output_data", size, 65))
        refused("asked for 64 from 9223372036854775807 on", client.infer, "simple", inputs, outputs=placed(kind, "output_data", size, 2**63 - 1))
        refused("Unable to find system shared memory region: \"absent\"", client.infer, "simple", inputs, outputs=placed(kind, "absent", size))
        inputs[0].set_shared_memory("input_data", size - 4)
        refused("input \"INPUT0\": shape [1, 16] of INT32 has 64 bytes, given 60 in region", client.infer, "simple", inputs)
        refused("already in the list", client.register_system_shared_memory, "input_data", key("input_simple"), size)
        for wrong, says in ((key("absent"), "cannot be opened"), ("/../shm/input_simple", "is a path"), ("..", "is a folder")):
            refused(says, client.register_system_shared_memory, "other", wrong, size)
        refused("has 128 bytes, the region would end at 129", client.register_system_shared_memory, "other", key("input_simple"), size * 2, offset=1)
        refused("are no part of a file", client.register_system_shared_memory, "other", key("input_simple"), 2**64 - 1, offset=2)
        os.mkfifo(path_of("test-pipe"))
        try:
            refused("is not a file", client.register_system_shared_memory, "other", key("test-pipe"), 1)
        finally:
            os.unlink(path_of("test-pipe"))
        os.symlink("/etc/hostname", path_of("test-link"))
        try:
            refused("cannot be opened", client.register_system_shared_memory, "other", key("test-link"), 1)
        finally:
            os.unlink(path_of("test-link"))

        # The file goes or shrinks under the gateway's hands: an error, and the gateway is there.
        inputs[0].set_shared_memory("input_data", size)
        os.truncate(path_of("input_simple"), 10)
        refused("its file has 10 bytes now, 128 when it was registered", client.infer, "simple", inputs)
        os.truncate(path_of("output_simple"), 70)
        refused("its file has 70 bytes now", client.infer, "simple", [given(kind, "INPUT0", A, "INT32"), inputs[1]], outputs=placed(kind, "output_data", size, size))
        assert os.stat(path_of("output_simple")).st_size == 70
        client.unregister_system_shared_memory("input_data")
        refused("Unable to find system shared memory region: \"input_data\"", client.infer, "simple", inputs)
        client.unregister_system_shared_memory()
        assert not (client.get_system_shared_memory_status() if kind is th else client.get_system_shared_memory_status().regions)
        os.truncate(path_of("input_simple"), size * 2), os.truncate(path_of("output_simple"), size * 2)
        for handle in (into, out):
            shm.destroy_shared_memory_region(handle)

        # More regions than there may be, and what there is no memory of.
        handle = shm.create_shared_memory_region("many", key("many_simple"), 8)
        for at in range(8):
            client.register_system_shared_memory(f"region {at}", key("many_simple"), 8)
        refused("8 regions are registered", client.register_system_shared_memory, "region 9", key("many_simple"), 8)
        client.unregister_system_shared_memory()
        shm.destroy_shared_memory_region(handle)
        refused("GPUs not supported", client.register_cuda_shared_memory, "gpu", b"0" * 64, 0, 8)
        refused("Unable to find cuda", client.get_cuda_shared_memory_status, "gpu")
        assert not (client.get_cuda_shared_memory_status() if kind is th else client.get_cuda_shared_memory_status().regions)
        client.close()


def placed(kind, region, size, offset=0):
    output = kind.InferRequestedOutput("OUTPUT1")
    output.set_shared_memory(region, size, offset=offset)
    return [output]


def texts_in_shared_memory():
    for kind, address in KINDS:
        client = kind.InferenceServerClient(address)
        tensors = {"input0": A, "input1": B, "output0": A + B, "output1": A - B}
        handles, sizes = {}, {}
        for name, array in tensors.items():
            serialized = serialize_byte_tensor(texts(array))
            sizes[name] = serialized_byte_size(serialized)
            handles[name] = shm.create_shared_memory_region(f"{name}_data", key(f"{name}_simple"), sizes[name])
            client.register_system_shared_memory(f"{name}_data", key(f"{name}_simple"), sizes[name])
            if name.startswith("input"):
                shm.set_shared_memory_region(handles[name], [serialized])
        inputs = [kind.InferInput(f"INPUT{at}", [1, 16], "BYTES") for at in range(2)]
        outputs = [kind.InferRequestedOutput(f"OUTPUT{at}") for at in range(2)]
        for at in range(2):
            inputs[at].set_shared_memory(f"input{at}_data", sizes[f"input{at}"])
            outputs[at].set_shared_memory(f"output{at}_data", sizes[f"output{at}"])
        client.infer("simple_string", inputs, outputs=outputs)
        for at in range(2):
            read = shm.get_contents_as_numpy(handles[f"output{at}"], np.object_, [1, 16])
            assert (read == texts(tensors[f"output{at}"])).all(), (kind, read)
        # A length that leads out of the region is not followed.
        shm.set_shared_memory_region(handles["input0"], [np.full(4, 255, np.uint8)])
        refused("element 0 of BYTES ends behind the data", client.infer, "simple_string", inputs, outputs=outputs)
        client.unregister_system_shared_memory()
        for handle in handles.values():
            shm.destroy_shared_memory_region(handle)
        client.close()


def regions_under_fire():
    """Regions that come, shrink, grow and go while they are used give answers or errors, and nothing else."""
    size, failures = 1 << 20, set()
    path = path_of("test-fire")
    with open(path, "wb") as file:
        file.truncate(size)

    def shake():
        for at in range(200):
            os.truncate(path, 0 if at % 2 else size)

    def ask():
        client, answered = th.InferenceServerClient(http_address), 0
        rows = size // 64
        for at in range(40):
            inputs = [th.InferInput(name, [rows // 4, 16], "INT32") for name in ("INPUT0", "INPUT1")]
            for one in inputs:
                one.set_shared_memory("fire", size // 4)
            try:
                client.infer("simple", inputs, outputs=[th.InferRequestedOutput("OUTPUT0")])
                answered += 1
            except InferenceServerException as error:
                failures.add(error.message())
        client.close()
        return answered

    def come_and_go():
        client = tg.InferenceServerClient(grpc_address)
        for _ in range(40):
            client.unregister_system_shared_memory("fire")
            try:
                client.register_system_shared_memory("fire", key("test-fire"), size)
            except InferenceServerException as error:
                failures.add(error.message())
        client.close()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = [pool.submit(work) for work in (shake, ask, ask, come_and_go)]
        [one.result() for one in done]
    os.unlink(path)
    known = ("became shorter", "bytes now", "Unable to find", "would end at", "already in the list")
    assert all(any(word in failure for word in known) for failure in failures), failures
    client = tg.InferenceServerClient(grpc_address)
    assert client.is_server_live()
    client.unregister_system_shared_memory()
    client.close()


def compression():
    """gzip and deflate, both ways; the JSON's length is that of the body as it is when it is unfolded."""
    client = th.InferenceServerClient(http_address)
    large = np.arange(16 * 500, dtype=np.int32).reshape(500, 16)
    outputs = [th.InferRequestedOutput("OUTPUT0", binary_data=True), th.InferRequestedOutput("OUTPUT1", binary_data=False)]
    for request in (None, "gzip", "deflate"):
        for response in (None, "gzip", "deflate"):
            for array in (A, large):
                how = {"request_compression_algorithm": request, "response_compression_algorithm": response}
                inputs = [given(th, "INPUT0", array, "INT32", binary_data=True), given(th, "INPUT1", array, "INT32", binary_data=False)]
                result = client.infer("simple", inputs, outputs=outputs, query_params={"test_1": 1}, **how)
                assert (result.as_numpy("OUTPUT0") == array * 2).all() and not result.as_numpy("OUTPUT1").any(), how
    asked = client.async_infer("simple", inputs, request_compression_algorithm="gzip", response_compression_algorithm="gzip")
    assert (asked.get_result().as_numpy("OUTPUT0") == large * 2).all()
    client.close()

    body = json.dumps({"inputs": [{"name": name, "shape": [1, 16], "datatype": "INT32", "data": A.ravel().tolist()} for name in ("INPUT0", "INPUT1")]})
    body, path = body.encode(), "/v2/models/simple/infer"
    long = json.dumps({"inputs": [{"name": name, "shape": [500, 16], "datatype": "INT32", "data": large.ravel().tolist()} for name in ("INPUT0", "INPUT1")]}).encode()
    for accepts, encoding in (("gzip", "gzip"), ("deflate", "deflate"), ("gzip;q=0, deflate", "deflate"), ("br", None)):
        status, headers, answer = raw(path, gzip.compress(long), {"content-encoding": "gzip", "accept-encoding": accepts})
        assert (status, headers["content-encoding"]) == (200, encoding), (accepts, headers)
        unfold = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[encoding]
        assert json.loads(unfold(answer))["outputs"][0]["data"] == (large * 2).ravel().tolist()
    # Too small to be worth it.
    assert raw(path, body, {"accept-encoding": "gzip"})[1]["content-encoding"] is None

    bomb = gzip.compress(b"0" * (64 << 20))
    assert len(bomb) < 1 << 17
    folded = gzip.compress(body)
    for sent, encoding, status, says in (
        (bomb, "gzip", 413, "unfolds into over 1048576 bytes"),
        (zlib.compress(b" " * (1 << 21)), "deflate", 413, "`body_max_bytes`"),
        (folded[:-9], "gzip", 400, "the gzip body is cut off"),
        (folded[:20], "gzip", 400, "the gzip body is cut off"),
        (folded + b"more", "gzip", 400, "has 4 bytes behind its end"),
        (folded, "deflate", 400, "the deflate body cannot be read"),
        (body, "gzip", 400, "the gzip body cannot be read"),
        (folded, "br", 415, "content-encoding \"br\" is not taken"),
        (gzip.compress(folded), "gzip, gzip", 415, "is not taken"),
        (gzip.compress(b""), "gzip", 400, "not an inference request"),
    ):
        answer = raw(path, sent, {"content-encoding": encoding})
        assert answer[0] == status and says in json.loads(answer[2])["error"], (encoding, answer)
    lying = raw(path, folded, {"content-encoding": "gzip", "inference-header-content-length": str(len(body) + 1)})
    assert lying[0] == 400 and "the body has" in json.loads(lying[2])["error"], lying

    client = tg.InferenceServerClient(grpc_address)
    zeros = np.zeros((500, 16), np.int32)
    for algorithm in (None, "gzip", "deflate"):
        for array in (large, zeros):
            inputs = [given(tg, name, array, "INT32") for name in ("INPUT0", "INPUT1")]
            result = client.infer("simple", inputs, compression_algorithm=algorithm)
            assert (result.as_numpy("OUTPUT0") == array * 2).all(), algorithm
    # 6 MiB that come as a few kilobytes: the bound of 4 MiB is on what they unfold into.
    huge = np.zeros((49152, 16), np.int32)
    inputs = [given(tg, name, huge, "INT32") for name in ("INPUT0", "INPUT1")]
    for algorithm in ("gzip", "deflate"):
        refused("4194304", client.infer, "simple", inputs, compression_algorithm=algorithm)
    client.close()


def configuration_with_a_load():
    for kind, address in KINDS:
        client = kind.InferenceServerClient(address)
        http = th.InferenceServerClient(http_address)
        config = lambda: http.get_model_config("simple")
        client.load_model("simple")
        assert config()["max_batch_size"] == 0 and config()["input"][0]["dims"] == [-1, 16]
        before = config()
        broken = '"parameters": {"config": {{"max_batch_size": "16"}}}'
        refused("failed to load", client.load_model, "simple", config=broken)
        client.load_model("simple", config='{"max_batch_size":"16"}')
        changed = config()
        assert changed["max_batch_size"] == 16 and changed["input"][0]["dims"] == [16], changed
        over_grpc = tg.InferenceServerClient(grpc_address).get_model_config("simple").config
        assert over_grpc.max_batch_size == 16 and list(over_grpc.input[0].dims) == [16], over_grpc
        rows = np.zeros((17, 16), np.int32)
        refused("a batch of 17, simple was loaded with max_batch_size 16", client.infer, "simple", [given(kind, name, rows, "INT32") for name in ("INPUT0", "INPUT1")])
        assert client.infer("simple", [given(kind, name, rows[:16], "INT32") for name in ("INPUT0", "INPUT1")]).as_numpy("OUTPUT0").shape == (16, 16)
        # What is shown may come back.
        client.load_model("simple", config=json.dumps(changed))
        assert config() == changed
        client.load_model("simple", config=json.dumps({"dynamic_batching": {"max_queue_delay_microseconds": 300, "preferred_batch_size": [4]}}))
        assert config()["dynamic_batching"] == {"preferred_batch_size": [4], "max_queue_delay_microseconds": 300}, config()
        for text, says in (
            ({"optimization": {}}, "optimization: it cannot be set with a request"),
            ({"name": "other"}, "name: it is \"simple\""),
            ({"backend": "python", "default_model_filename": "model.py"}, "default_model_filename: it is \"model.onnx\""),
            ({"parameters": {"EXECUTION_ENV_PATH": {"string_value": "/tmp/x"}}}, "parameters: EXECUTION_ENV_PATH"),
            ({"version_policy": {"specific": {"versions": [7]}}}, "outside of the version policy"),
        ):
            error = refused(says, client.load_model, "simple", config=json.dumps(text))
            assert "failed to load" in error.message()
        error = refused("failed to poll from model repository", client.load_model, "simple", config="{}", files={"file:" + "A" * 256: b"a"})
        assert kind is th or error.status() == "StatusCode.INTERNAL", error.status()
        assert client.is_server_live()
        # Without one, it is as configured again; what was refused has changed nothing.
        client.load_model("simple")
        assert config() == before, (config(), before)
        client.unload_model("simple", unload_dependents=True)
        assert not client.is_model_ready("simple")
        refused("failed to load", client.load_model, "wrong_model_name")
        client.load_model("simple")
        client.close(), http.close()


def log_settings():
    for kind, address in KINDS:
        client = kind.InferenceServerClient(address)

        def settings(change=None):
            told = client.get_log_settings() if change is None else client.update_log_settings(change)
            if kind is th:
                return told
            return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in told.settings.items()}

        before = settings()
        assert before == {"log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0, "log_format": "ISO8601"}, before
        assert settings({"log_verbose_level": 2})["log_verbose_level"] == 2
        assert settings({"log_verbose_level": 0, "log_info": False, "log_warning": False})["log_info"] is False
        assert settings({"log_info": True, "log_warning": True}) == before
        refused("log_warning without log_error", client.update_log_settings, {"log_info": False, "log_error": False})
        refused("goes to standard error", client.update_log_settings, {"log_file": "/tmp/x"})
        assert settings() == before
        client.close()
    extensions = th.InferenceServerClient(http_address).get_server_metadata()["extensions"]
    assert {"system_shared_memory", "logging", "trace"} <= set(extensions), extensions


def traces():
    for kind, address in KINDS:
        client = kind.InferenceServerClient(address)

        def settings(model=None, change=None):
            told = client.get_trace_settings(model) if change is None else client.update_trace_settings(model, change)
            if kind is th:
                return told
            told = {name: list(value.value) for name, value in told.settings.items()}
            return {name: values if name == "trace_level" else values[0] for name, values in told.items()}

        off = {"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0", "trace_file": "", "trace_mode": "triton"}
        assert settings() == off and settings("simple") == off, settings()
        on = settings("simple", {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "2"})
        assert on == {**off, "trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "2"}, on
        assert settings() == off, "one model's are its own"
        for number in range(3):
            inputs = [given(kind, "INPUT0", A, "INT32"), given(kind, "INPUT1", B, "INT32")]
            client.infer("simple", inputs, request_id=f"{kind.__name__}-{number}")
        assert settings("simple")["trace_count"] == "0"
        assert settings("simple", {"trace_level": None, "trace_rate": None, "trace_count": None}) == off
        # What an answer's writing took is known a moment after the client has it.
        for _ in range(500):
            told = json.loads(raw("/api/v1/traces?model=simple", None, method="GET")[2])
            ends = [moment["name"] for other in told for moment in other.get("timestamps", [])].count("HTTP_SEND_END")
            if kind is not th or ends == 2:
                break
        else:
            raise AssertionError(f"two answers are written, {ends} of them are in the traces: {told}")
        mine = [trace for trace in told if trace.get("request_id", "").startswith(kind.__name__)]
        assert [trace["request_id"] for trace in mine] == [f"{kind.__name__}-0", f"{kind.__name__}-1"], told
        for trace in mine:
            assert (trace["model_name"], trace["model_version"]) == ("simple", 1), trace
            moments = [other["timestamps"] for other in told if other["id"] == trace["id"] and "timestamps" in other][0]
            inner = ["REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END", "REQUEST_END"]
            outer = ["HTTP_RECV_START", "HTTP_RECV_END", *inner, "HTTP_SEND_START", "HTTP_SEND_END"]
            assert [moment["name"] for moment in moments] == (outer if kind is th else inner), moments
            times = [moment["ns"] for moment in moments]
            assert times == sorted(times) and times[0] > 0, times
        refused("is not kept", client.update_trace_settings, settings={"trace_level": ["TENSORS"]})
        refused("kept in memory", client.update_trace_settings, settings={"trace_level": ["TIMESTAMPS"], "trace_file": "/tmp/x"})
        refused("absent", client.get_trace_settings, model_name="absent")
        assert settings() == off, "all of a change, or nothing"
        client.close()


for part in (strings, small_numbers_by_hand, shared_memory, texts_in_shared_memory, regions_under_fire, compression, configuration_with_a_load, log_settings, traces):
    part()
    print(part.__name__)
