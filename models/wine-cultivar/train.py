"""Trains the wine classifier and writes 1/model.onnx and 1/manifest.toml: python train.py

Boosted trees of scikit-learn on the wine data that ship with it. Needs the packages in ../requirements.txt.
"""
import hashlib
import pathlib

import numpy as np
from sklearn.datasets import load_wine
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_predict, cross_validate, StratifiedKFold
from skl2onnx import to_onnx

SEED = 1
HERE = pathlib.Path(__file__).parent / "1"
UNITS = {
    "alcohol": "% vol", "malic_acid": "g/l", "ash": "g/l", "alcalinity_of_ash": "meq/l", "magnesium": "mg/l",
    "total_phenols": "", "flavanoids": "", "nonflavanoid_phenols": "", "proanthocyanins": "",
    "color_intensity": "", "hue": "", "od280/od315_of_diluted_wines": "", "proline": "mg/l",
}


def classifier():
    return GradientBoostingClassifier(n_estimators=60, max_depth=2, learning_rate=0.1, subsample=0.7, random_state=SEED)


data = load_wine()
x, y = data.data.astype(np.float32), data.target
repeated = RepeatedStratifiedKFold(n_splits=10, n_repeats=5, random_state=SEED)
scores = cross_validate(classifier(), x, y, cv=repeated, scoring=["accuracy", "neg_log_loss"])
held_out = cross_val_predict(classifier(), x, y, cv=StratifiedKFold(10, shuffle=True, random_state=SEED))
model = classifier().fit(x, y)
onnx = to_onnx(model, x[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
HERE.mkdir(exist_ok=True)
(HERE / "model.onnx").write_bytes(onnx.SerializeToString())

samples = [0, 70, 150]
probabilities = model.predict_proba(x[samples])
names = [name.replace("od280/od315_of_diluted_wines", "od280_od315") for name in data.feature_names]


def field(name, original):
    unit = UNITS[original]
    return f'    {{ name = "{name}", unit = "{unit}" }},' if unit else f'    "{name}",'


fields = "\n".join(field(name, original) for name, original in zip(names, data.feature_names))
golden = "\n".join(
    "[[golden]]\ninput = [" + ", ".join(f"{value:.6g}" for value in x[sample]) + "]\n"
    + "output = { label = " + str(int(model.predict(x[sample : sample + 1])[0]))
    + ", probabilities = [" + ", ".join(f"{value:.7f}" for value in row) + "] }\ntolerance = 0.0001\n"
    for sample, row in zip(samples, probabilities)
)
manifest = f"""# Written by train.py; every figure below was measured by it.
[model]
name = "wine-cultivar"
version = 1
task = "classification"
file = "model.onnx"
sha256 = "{hashlib.sha256((HERE / 'model.onnx').read_bytes()).hexdigest()}"
format = "onnx"
license = "Apache-2.0 OR MIT"
description = "Which of three cultivars a wine was made of, from thirteen figures of its chemical analysis: 60 rounds of boosted trees of depth 2"

[[input]]
name = "X"
datatype = "FP32"
shape = [-1, 13]

[[output]]
name = "label"
datatype = "INT64"
shape = [-1]
labels = ["cultivar 1", "cultivar 2", "cultivar 3"]

[[output]]
name = "probabilities"
datatype = "FP32"
shape = [-1, 3]
labels = ["cultivar 1", "cultivar 2", "cultivar 3"]

[[predict.input]]
kind = "record"
fields = [
{fields}
]

[[predict.output]]
name = "cultivar"
tensor = "probabilities"
steps = [{{ step = "top_k", k = 3 }}]

[provenance]
data = "scikit-learn 1.9.1 load_wine: UCI Wine, 178 wines of one region of Italy"
data_license = "CC-BY-4.0"
data_source = "Aeberhard and Forina (1991), UCI Machine Learning Repository, doi.org/10.24432/C5PC7J"
script = "models/wine-cultivar/train.py"
seed = {SEED}
trained_on = "all 178 wines; the quality below is of models trained without the wines that they were asked about"

[quality]
accuracy_mean = {scores['test_accuracy'].mean():.4f}
accuracy_std = {scores['test_accuracy'].std():.4f}
log_loss_mean = {-scores['test_neg_log_loss'].mean():.4f}
how = "10-fold cross-validation, stratified, 5 times"
wrong_of_178 = {int((held_out != y).sum())}
limits = "One region, one year, three cultivars: a wine from elsewhere gets one of the three labels all the same."

{golden}"""
(HERE / "manifest.toml").write_text(manifest)
print(manifest)
