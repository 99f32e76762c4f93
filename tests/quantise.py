"""Trains a small network on the digits that come with scikit-learn, for tests/suite/quantise.rs.

    python tests/quantise.py FOLDER

FOLDER gets network.joblib, rows.npz with x and y that it has not seen, rows.f32 and labels.u8 with the same as bare elements, and
narrow.npz, whose rows are too short.
"""
import pathlib
import sys
import warnings

warnings.filterwarnings("ignore")
try:
    import joblib
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier
except ImportError as error:
    sys.exit(f"{error}: make tools-test installs what is needed; name the interpreter in FOREBAY_PYTHON")

OUT = pathlib.Path(sys.argv[1])
data = load_digits()
order = np.random.default_rng(1).permutation(len(data.target))
x, y = (data.data[order] / 16).astype(np.float32), data.target[order]
network = MLPClassifier((32,), alpha=0.1, max_iter=60, learning_rate_init=0.005, random_state=1).fit(x[:1000], y[:1000])
joblib.dump(network, OUT / "network.joblib")
np.savez(OUT / "rows.npz", x=x[1000:], y=y[1000:])
np.savez(OUT / "narrow.npz", x=x[1000:, :63], y=y[1000:])
np.savez(OUT / "bare.npz", x=x[1000:])
(OUT / "rows.f32").write_bytes(x[1000:].tobytes())
(OUT / "labels.u8").write_bytes(y[1000:].astype(np.uint8).tobytes())
