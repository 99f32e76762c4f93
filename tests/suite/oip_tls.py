"""NVIDIA's own client over TLS, as its example programs do: http|grpc PORT FOLDER, which has ca.pem, app.pem and app.key."""

import sys

import numpy as np

kind, port, folder = sys.argv[1], sys.argv[2], sys.argv[3]
address = f"localhost:{port}"
ca, certificate, key = (f"{folder}/{name}" for name in ("ca.pem", "app.pem", "app.key"))

if kind == "http":
    import tritonclient.http as client_of

    def client(with_certificate, authority=ca):
        options = {"ca_certs": authority} if authority else {}
        if with_certificate:
            options |= {"certfile": certificate, "keyfile": key}
        return client_of.InferenceServerClient(address, ssl=True, ssl_options=options)

else:
    import tritonclient.grpc as client_of

    def client(with_certificate, authority=ca):
        files = {"certificate_chain": certificate, "private_key": key} if with_certificate else {}
        return client_of.InferenceServerClient(address, ssl=True, root_certificates=authority, **files)


A = np.arange(16, dtype=np.int32).reshape(1, 16)
inputs = []
for name in ("INPUT0", "INPUT1"):
    inputs.append(client_of.InferInput(name, [1, 16], "INT32"))
    inputs[-1].set_data_from_numpy(A)

# Whose certificate names an identity needs no key; this one may manage models.
known = client(True)
for _ in range(3):
    assert (known.infer("simple", inputs).as_numpy("OUTPUT0") == 2 * A).all()
known.load_model("simple")
known.close()

# Without one, nobody is let in but probes, and a key is as good.
nobody = client(False)
assert nobody.is_server_live() and nobody.is_server_ready()
for headers, says in ((None, "who is calling"), ({"authorization": "Bearer wrong"}, "who is calling")):
    try:
        nobody.infer("simple", inputs, headers=headers)
    except Exception as error:
        assert says in str(error), error
    else:
        raise AssertionError("nobody was let in")
key_of = {"authorization": "Bearer " + sys.argv[4]}
assert (nobody.infer("simple", inputs, headers=key_of).as_numpy("OUTPUT1") == 0).all()
try:
    nobody.load_model("simple", headers=key_of)
except Exception as error:
    assert "manage_models" in str(error), error
else:
    raise AssertionError("a stranger loaded a model")
nobody.close()

# A client that does not know the authority does not talk to the gateway.
doubts = client(False, None)
try:
    doubts.is_server_live()
except Exception as error:
    assert "CERTIFICATE_VERIFY_FAILED" in str(error) or "UNAVAILABLE" in str(error) or "failed to connect" in str(error), error
else:
    raise AssertionError("a certificate of nobody was believed")
print(kind)
