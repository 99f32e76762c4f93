"""KServe's own client against a gateway that has the models of tests/fixtures: HTTP_ADDRESS GRPC_ADDRESS MODELS_FOLDER."""

import asyncio
import sys

try:
    import grpc
    import httpx
    import numpy as np
    from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig
    from kserve.inference_client import InferenceGRPCClient
except ImportError as error:
    sys.exit(f"{error}: python3 -m pip install kserve==0.21.0, and name the interpreter in FOREBAY_PYTHON")

url, grpc_address = f"http://{sys.argv[1]}", sys.argv[2]
A = np.arange(32, dtype=np.int32).reshape(2, 16)
B = np.full((2, 16), 3, dtype=np.int32)


def request(binary, model="simple"):
    inputs = []
    for name, array in (("INPUT0", A), ("INPUT1", B)):
        inputs.append(InferInput(name, list(array.shape), "INT32"))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=inputs)


def check(answer):
    outputs = {output.name: output.as_numpy().reshape(2, 16) for output in answer.outputs}
    np.testing.assert_array_equal(outputs["OUTPUT0"], A + B)
    np.testing.assert_array_equal(outputs["OUTPUT1"], A - B)
    assert answer.model_name == "simple"


async def over_rest():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await client.is_server_live(url) and await client.is_server_ready(url)
    assert await client.is_model_ready(url, "simple")
    for binary in (False, True):
        check(await client.infer(url, request(binary), model_name="simple"))
    answers = await asyncio.gather(*(client.infer(url, request(True), model_name="simple") for _ in range(16)))
    for answer in answers:
        check(answer)
    try:
        await client.infer(url, request(False), model_name="nobody")
        raise AssertionError("nobody answered")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404 and "unknown model" in str(error), error
    await client.close()


async def over_grpc():
    client = InferenceGRPCClient(grpc_address)
    assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("simple")
    for binary in (False, True):
        check(await client.infer(request(binary)))
    try:
        await client.infer(request(True, "nobody"))
        raise AssertionError("nobody answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND and "unknown model" in error.details(), error
    await client.close()


async def all_of_it():
    await over_rest()
    await over_grpc()


asyncio.run(all_of_it())
