"""NVIDIA's own clients against a gateway that has the models of tests/fixtures: HTTP_ADDRESS GRPC_ADDRESS MODELS_FOLDER."""

import asyncio
import json
import pathlib
import queue
import shutil
import sys
import threading
import urllib.error
import urllib.request

try:
    import grpc as gcrpc
    import numpy as np
    import tritonclient.grpc as tg
    import tritonclient.grpc.aio as tga
    import tritonclient.http as th
    from tritonclient.utils import InferenceServerException
except ImportError as error:
    sys.exit(f"{error}: python3 -m pip install 'tritonclient[http,grpc]==2.73.0', and name the interpreter in FOREBAY_PYTHON")

http_address, grpc_address, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.full((1, 16), 3, dtype=np.int32)


def inputs(kind, a=A, b=B, **how):
    given = []
    for name, array in (("INPUT0", a), ("INPUT1", b)):
        given.append(kind.InferInput(name, list(array.shape), "INT32"))
        given[-1].set_data_from_numpy(array, **how)
    return given


def check(result, a=A, b=B):
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), a + b)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), a - b)


def refused(says, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except InferenceServerException as error:
        assert says in error.message(), f"expected {says!r} in {error.message()!r}"
        return error.status()
    else:
        raise AssertionError(f"nothing was refused; expected {says!r}")


def http_infers():
    client = th.InferenceServerClient(http_address)
    outputs = lambda **how: [th.InferRequestedOutput(name, **how) for name in ("OUTPUT0", "OUTPUT1")]
    for binary_in in (True, False):
        for wanted in (None, outputs(binary_data=True), outputs(binary_data=False)):
            result = client.infer("simple", inputs(th, binary_data=binary_in), outputs=wanted, request_id="7")
            check(result)
            assert result.get_response()["id"] == "7"
    large = np.arange(16 * 500, dtype=np.int32).reshape(500, 16)
    check(client.infer("simple", inputs(th, large, large), model_version="1"), large, large)
    only = client.infer("simple", inputs(th), outputs=[th.InferRequestedOutput("OUTPUT1")])
    assert only.as_numpy("OUTPUT0") is None and (only.as_numpy("OUTPUT1") == A - B).all()
    top = client.infer("simple", inputs(th), outputs=[th.InferRequestedOutput("OUTPUT0", class_count=2)])
    assert [text.decode() for text in top.as_numpy("OUTPUT0")[0]] == ["18.000000:15", "17.000000:14"]
    refused("Request for unknown model", client.infer, "absent", inputs(th))
    refused("input INPUT0 has shape [1, 4], expected [-1, 16]", client.infer, "simple", inputs(th, A[:, :4], B))
    wrong = th.InferInput("INPUT0", [1, 16], "FP32")
    wrong.set_data_from_numpy(A.astype(np.float32))
    refused("input INPUT0 is FP32, expected INT32", client.infer, "simple", [wrong, inputs(th)[1]])
    refused("no output \"other\"; it has OUTPUT0, OUTPUT1", client.infer, "simple", inputs(th), outputs=[th.InferRequestedOutput("other")])
    asked = [client.async_infer("simple", inputs(th)) for _ in range(20)]
    for one in asked:
        check(one.get_result())
    client.close()


def mistakes():
    """What is wrong with a request is the caller's mistake over both doors, and says which tensor."""
    for kind, address, status in ((th, http_address, "400"), (tg, grpc_address, "StatusCode.INVALID_ARGUMENT")):
        client = kind.InferenceServerClient(address)
        two, none = np.repeat(B, 2, axis=0), B[:0]
        odd = kind.InferInput("x", [3], "FP32")
        odd.set_data_from_numpy(np.array([1, np.nan, 2], "f4"))
        twice = [kind.InferRequestedOutput("OUTPUT0") for _ in range(64)]
        for says, model, given, how in (
            ("INPUT1 has shape [2, 16] and input INPUT0 has shape [1, 16]: dimension n is one size", "simple", inputs(kind, A, two), {}),
            ("INPUT0 has shape [0, 16]: tract computes no empty tensors", "simple", inputs(kind, none, none), {}),
            ("\"OUTPUT0\" is asked for twice", "simple", inputs(kind), {"outputs": twice}),
            ("no input INPUT1", "simple", [inputs(kind)[0]] * 2, {}),
            ("x has NaN at element 1", "reciprocal", [odd], {}),
        ):
            given = refused(says, client.infer, model, given, **how)
            assert given == status, (kind, says, given)
        client.close()


def grpc_infers():
    client = tg.InferenceServerClient(grpc_address)
    check(client.infer("simple", inputs(tg), request_id="9"))
    large = np.arange(16 * 5000, dtype=np.int32).reshape(5000, 16)
    check(client.infer("simple", inputs(tg, large, large), model_version="1"), large, large)
    top = client.infer("simple", inputs(tg), outputs=[tg.InferRequestedOutput("OUTPUT0", class_count=2)])
    assert [text.decode() for text in top.as_numpy("OUTPUT0")[0]] == ["18.000000:15", "17.000000:14"]
    refused("Request for unknown model", client.infer, "absent", inputs(tg))
    refused("input INPUT0 has shape [1, 4]", client.infer, "simple", inputs(tg, A[:, :4], B))
    refused("\"new\" is not a version", client.infer, "simple", inputs(tg), model_version="new")
    done = queue.Queue()
    for _ in range(20):
        client.async_infer("simple", inputs(tg), callback=lambda result, error: done.put((result, error)))
    for _ in range(20):
        result, error = done.get(timeout=60)
        assert error is None, error
        check(result)
    client.close()


def grpc_streams():
    """Answers keep the order of the questions; a wrong one is an answer too, and the stream goes on."""
    client = tg.InferenceServerClient(grpc_address)
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for at in range(50):
        model = "absent" if at == 20 else "simple"
        client.async_stream_infer(model, inputs(tg, A + at), request_id=str(at))
    for at in range(50):
        result, error = answers.get(timeout=60)
        if at == 20:
            assert "unknown model" in error.message(), error
        else:
            assert error is None, error
            assert result.get_response().id == str(at)
            check(result, A + at)
    client.stop_stream()
    client.close()


async def grpc_asyncio():
    async with tga.InferenceServerClient(grpc_address) as client:
        assert await client.is_server_ready()
        for result in await asyncio.gather(*(client.infer("simple", inputs(tga)) for _ in range(10))):
            check(result)


def descriptions_agree():
    http, grpc = th.InferenceServerClient(http_address), tg.InferenceServerClient(grpc_address)
    for client in (http, grpc):
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("simple")
        assert client.is_model_ready("simple", "1")
        refused("Request for unknown model", client.get_model_metadata, "absent")
    assert http.get_server_metadata() == grpc.get_server_metadata(as_json=True)
    assert "binary_tensor_data" in http.get_server_metadata()["extensions"]
    ours, theirs = http.get_model_metadata("simple"), grpc.get_model_metadata("simple", as_json=True)
    assert ours["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}, ours
    assert [port["name"] for port in theirs["outputs"]] == [port["name"] for port in ours["outputs"]]
    config = grpc.get_model_config("simple").config
    assert http.get_model_config("simple")["input"][0]["data_type"] == "TYPE_INT32"
    assert (config.input[0].data_type, list(config.input[0].dims)) == (8, [-1, 16]), config
    figures = http.get_inference_statistics("simple", "1")["model_stats"][0]
    same = grpc.get_inference_statistics("simple").model_stats[0]
    assert figures["inference_count"] == same.inference_count > 5500, figures
    # Requests that waited together are one run.
    assert 0 < same.execution_count <= figures["inference_stats"]["success"]["count"]
    assert figures["inference_stats"]["fail"]["count"] >= 3 and same.last_inference > 1_700_000_000_000
    assert not grpc.get_system_shared_memory_status().regions
    http.close(), grpc.close()


def models_come_and_go():
    http, grpc = th.InferenceServerClient(http_address), tg.InferenceServerClient(grpc_address)
    for client, kind in ((http, th), (grpc, tg)):
        states = lambda: {(m["name"], m["version"]): m["state"] for m in http.get_model_repository_index()}
        client.unload_model("simple")
        assert states()["simple", "1"] == "UNAVAILABLE" and not client.is_model_ready("simple")
        refused("it was unloaded", client.infer, "simple", inputs(kind))
        client.load_model("simple")
        check(client.infer("simple", inputs(kind)))
        # A version that comes is served; one that goes is not there any more.
        shutil.copytree(folder / "simple" / "1", folder / "simple" / "2")
        manifest = folder / "simple" / "2" / "manifest.toml"
        manifest.write_text(manifest.read_text().replace("version = 1", "version = 2"))
        # What was copied in is listed before anybody loads it, and so is a model that is new.
        shutil.copytree(folder / "simple" / "1", folder / "newcomer" / "7")
        (folder / "notes").mkdir()
        for listed in (
            [(m["name"], m["version"], m["state"], m.get("reason")) for m in http.get_model_repository_index()],
            [(m.name, m.version, m.state, m.reason) for m in grpc.get_model_repository_index().models],
        ):
            for new in (("newcomer", "7"), ("simple", "2")):
                assert (*new, "UNAVAILABLE", "not loaded") in listed, listed
            assert not any(name == "notes" for name, *_ in listed), listed
        for ready in (
            urllib.request.urlopen(f"http://{http_address}/v2/repository/index", b'{"ready": true}').read().decode(),
            str(grpc._client_stub.RepositoryIndex(tg.service_pb2.RepositoryIndexRequest(ready=True))),
        ):
            assert "simple" in ready and "newcomer" not in ready, ready
        shutil.rmtree(folder / "newcomer"), (folder / "notes").rmdir()
        client.load_model("simple")
        assert client.infer("simple", inputs(kind)).get_response()["model_version"] == "2" if kind is th else True
        assert states()["simple", "2"] == "READY"
        # A bad delivery is refused, and what serves serves on.
        manifest.write_text(manifest.read_text().replace("INT32", "FP64"))
        client.load_model("simple")
        assert states() == {**states(), ("simple", "1"): "READY", ("simple", "2"): "UNAVAILABLE"}
        shutil.rmtree(folder / "simple" / "2")
        client.load_model("simple")
        assert ("simple", "2") not in states()
        refused("failed to load", client.load_model, "wrong_model_name")
        refused("failed to load" if kind is tg else "nothing at", client.load_model, "../simple")
    assert len(grpc.get_model_repository_index().models) == len(http.get_model_repository_index())
    http.close(), grpc.close()


def versions_and_aliases():
    """Two versions at once, asked by number, by alias and by none; the alias is moved by whoever may."""

    def door(method, path, body=None):
        request = urllib.request.Request(f"http://{http_address}{path}", body and json.dumps(body).encode(), method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    shutil.copytree(folder / "simple" / "1", folder / "simple" / "2")
    manifest = folder / "simple" / "2" / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("version = 1", "version = 2"))
    http, grpc = th.InferenceServerClient(http_address), tg.InferenceServerClient(grpc_address)
    http.load_model("simple")
    aliases = "/api/v1/models/simple/aliases"
    assert door("PUT", f"{aliases}/prod", {"version": 1}) == (200, {"aliases": {"prod": 1}})
    assert door("PUT", f"{aliases}/canary", {"version": 2})[1]["aliases"] == {"canary": 2, "prod": 1}
    for client, kind in ((http, th), (grpc, tg)):
        of = lambda result: result.get_response()["model_version"] if kind is th else result.get_response().model_version
        for asked, answers in (("1", "1"), ("2", "2"), ("prod", "1"), ("canary", "2"), ("", "2")):
            result = client.infer("simple", inputs(kind), model_version=asked)
            check(result)
            assert of(result) == answers, (kind, asked, of(result))
            assert client.is_model_ready("simple", asked)
        assert of(client.infer("simple@prod", inputs(kind))) == "1"
        refused("the aliases of simple are canary, prod", client.infer, "simple", inputs(kind), model_version="beta")
        assert client.get_model_metadata("simple", "prod", **({} if kind is th else {"as_json": True}))["versions"] == ["1", "2"]
    assert door("PUT", f"{aliases}/default", {"version": 1})[0] == 200
    assert http.infer("simple", inputs(th)).get_response()["model_version"] == "1"
    assert door("DELETE", f"{aliases}/default")[0] == 200
    assert door("DELETE", f"{aliases}/default")[0] == 404
    for path, body, status in (("9x", {"version": 1}, 400), ("prod", {"version": 7}, 404), ("prod", {"version": "1"}, 400), ("prod", {}, 400)):
        assert door("PUT", f"{aliases}/{path}", body)[0] == status, (path, body)
    assert door("GET", "/api/v1/models/absent/aliases")[0] == 404
    # Half of the users each; a user's version is the same over both doors, by a header or by Triton's sequence id.
    traffic = "/api/v1/models/simple/traffic"
    assert door("GET", traffic)[1]["source"] == "none"
    status, view = door("PUT", traffic, {"split": {"prod": 1, "canary": 1}})
    assert status == 200 and [(t["to"], t["version"], t["share"]) for t in view["split"]] == [("canary", 2, 0.5), ("prod", 1, 0.5)], view
    versions = set()
    for user in range(1, 25):
        by_user = {
            version(client.infer("simple", inputs(kind), **how).get_response())
            for client, kind, version in ((http, th, lambda answer: answer["model_version"]), (grpc, tg, lambda answer: answer.model_version))
            for how in ({"headers": {"x-forebay-sticky": str(user)}}, {"sequence_id": user}, {"sequence_id": str(user)})
        }
        assert len(by_user) == 1, (user, by_user)
        versions |= by_user
    assert versions == {"1", "2"}, versions
    chosen = {v["version"]: v["chosen"] for v in door("GET", traffic)[1]["versions"]}
    assert chosen[1] + chosen[2] == 24 * 6 and min(chosen.values()) > 0, chosen
    for body, status in (({"split": {"beta": 1}}, 400), ({"split": {"prod": 0}}, 400), ({}, 400), ({"weights": {}}, 400), ([], 400)):
        assert door("PUT", traffic, body)[0] == status, body
    assert door("GET", "/api/v1/models/absent/traffic")[0] == 404
    assert door("DELETE", traffic)[1]["source"] == "none" and door("DELETE", traffic)[0] == 404
    engine = door("GET", "/api/v1/engine")[1]
    assert engine["level"] in ("normal", "reduced", "minimal") and engine["memory_reserved_bytes"] > 0, engine
    with urllib.request.urlopen(f"http://{http_address}/metrics") as answer:
        metrics = answer.read().decode()
    assert 'forebay_model_ready{model="simple",version="2",state="serving"} 1' in metrics, metrics
    shutil.rmtree(folder / "simple" / "2")
    http.load_model("simple")
    http.close(), grpc.close()


def priorities_deadlines_and_batches():
    """Terms that clients send with a request are taken, and what was counted adds up."""
    http, grpc = th.InferenceServerClient(http_address, concurrency=16), tg.InferenceServerClient(grpc_address)
    before = http.get_inference_statistics("simple", "1")["model_stats"][0]
    for priority in (0, 1, 9, 2**31):
        check(http.infer("simple", inputs(th), priority=priority, timeout=30_000_000))
        check(grpc.infer("simple", inputs(tg), priority=priority, timeout=30_000_000, client_timeout=30))
    asked = [http.async_infer("simple", inputs(th, A + at)) for at in range(64)]
    for at, one in enumerate(asked):
        check(one.get_result(), A + at)
    after = http.get_inference_statistics("simple", "1")["model_stats"][0]
    grown = lambda stats: (stats["inference_count"], stats["inference_stats"]["success"]["count"])
    assert [b - a for a, b in zip(grown(before), grown(after))] == [72, 72], (before, after)
    runs = sum(batch["compute_infer"]["count"] for batch in after["batch_stats"])
    rows = sum(batch["compute_infer"]["count"] * batch["batch_size"] for batch in after["batch_stats"])
    assert runs == after["execution_count"] and rows == after["inference_count"], after
    theirs = grpc.get_inference_statistics("simple", "1").model_stats[0]
    assert sum(batch.compute_infer.count for batch in theirs.batch_stats) == theirs.execution_count
    for part in ("compute_input", "compute_infer", "compute_output"):
        ours = after["inference_stats"][part]
        assert ours["count"] == after["inference_stats"]["success"]["count"] and ours["ns"] > 0, (part, after)
        assert getattr(theirs.inference_stats, part).ns > 0 and all(getattr(batch, part).ns > 0 for batch in theirs.batch_stats), (part, theirs)
    # The batching of this one is forced by the configuration.
    config = http.get_model_config("dense")
    assert config["dynamic_batching"] == {"preferred_batch_size": [4], "max_queue_delay_microseconds": 100}, config
    assert grpc.get_model_config("dense").config.dynamic_batching.preferred_batch_size == [4]
    http.close(), grpc.close()


def under_fire():
    """A model that is loaded and unloaded while it is asked answers or says that it is away, and nothing else."""
    stop, seen, wrong = threading.Event(), set(), []

    def ask():
        client = tg.InferenceServerClient(grpc_address)
        while not stop.is_set():
            try:
                check(client.infer("simple", inputs(tg)))
                seen.add("answered")
            except InferenceServerException as error:
                if "it was unloaded" in error.message():
                    seen.add("away")
                else:
                    wrong.append(error.message())
        client.close()

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    client = th.InferenceServerClient(http_address)
    rounds = 0
    while rounds < 30 or (seen != {"answered", "away"} and rounds < 1000):
        client.unload_model("simple")
        client.load_model("simple")
        rounds += 1
    stop.set()
    for asker in askers:
        asker.join()
    assert not wrong and seen == {"answered", "away"}, (wrong[:3], seen)
    client.close()


def probes_are_answered():
    """grpc.health.v1, as Kubernetes and Envoy ask it; messages by hand, because they are two bytes."""
    serving, not_serving, unknown = b"\x08\x01", b"\x08\x02", b"\x08\x03"
    name = lambda text: b"\x0a" + bytes([len(text)]) + text.encode()
    client = tg.InferenceServerClient(grpc_address)
    with gcrpc.insecure_channel(grpc_address) as channel:
        check_call = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check_call(b"") == serving
        assert check_call(name("inference.GRPCInferenceService")) == serving
        assert check_call(name("simple")) == serving and check_call(name("simple/1")) == serving
        for strange in ("nobody", "simple/9", "../simple"):
            try:
                assert not check_call(name(strange))
            except gcrpc.RpcError as error:
                assert error.code() == gcrpc.StatusCode.NOT_FOUND and strange in error.details(), error
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        told = watch(name("simple"))
        assert next(told) == serving
        client.unload_model("simple")
        assert next(told) == not_serving
        client.load_model("simple")
        assert next(told) == serving
        told.cancel()
        strangers = watch(name("nobody"))
        assert next(strangers) == unknown
        strangers.cancel()
    client.close()


for part in (http_infers, mistakes, grpc_infers, grpc_streams, lambda: asyncio.run(grpc_asyncio()), descriptions_agree, models_come_and_go, versions_and_aliases, priorities_deadlines_and_batches, probes_are_answered, under_fire):
    part()
    print(getattr(part, "__name__", "?"))
