#!/usr/bin/env python3
"""Train, export and measure the bundled `machine-temperature` anomaly model.

A denoising autoencoder over the last 12 hours (144 readings, 5 minutes apart).
Writes `1/model.onnx` and `1/manifest.toml`. `--study` prints instead how the
result moves with the seed and with the choices made, and writes nothing.

    pip install -r models/machine-temperature/requirements.txt
    python3 models/machine-temperature/train.py
"""

import os

# One BLAS thread: the order of additions, and so the last bit, stays the same from run to run.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import argparse
import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SERIES = "realKnownCause/machine_temperature_system_failure.csv"

SEED = 1
WINDOW = 144  # readings: 12 hours
BLOCK = 12  # readings averaged into one step: 1 hour
HIDDEN, BOTTLENECK = 24, 3
OFFSET_NOISE = 1.0  # training standard deviations, one draw for the whole window
STEP_NOISE = 0.5  # training standard deviations, one draw a step
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 40, 128, 3e-3, 1e-4

HEADROOM = 1.1  # raise = HEADROOM x the highest score that held in the quiet training rows
CLEAR_RATIO = 0.7  # clear = CLEAR_RATIO x raise
RAISE_AFTER, CLEAR_AFTER = 12, 72  # readings: 1 hour, 6 hours
READINGS_PER_HOUR = 12
NAB_PROBATION = 750  # rows: NAB's 15 %, capped at 15 % of 5,000


# --- data ---------------------------------------------------------------------------------


def load(data, windows):
    """Timestamps, values in degrees Fahrenheit, and the labelled windows as inclusive row pairs."""
    with open(data, newline="") as file:
        rows = list(csv.DictReader(file))
    times = [row["timestamp"] for row in rows]
    values = np.array([float(row["value"]) for row in rows])
    spans = []
    for first, last in json.loads(Path(windows).read_text())[SERIES]:
        inside = [i for i, t in enumerate(times) if first[:19] <= t <= last[:19]]
        spans.append((inside[0], inside[-1]))
    return times, values, spans


def quiet_rows(count, spans, end, margin=0):
    """Rows before `end` that lie in no labelled window, nor within `margin` rows of one."""
    quiet = np.zeros(count, bool)
    quiet[:end] = True
    for first, last in spans:
        quiet[max(0, first - margin) : last + 1 + margin] = False
    return quiet


def sliding(values, size):
    return np.lib.stride_tricks.sliding_window_view(values, size)


def all_quiet(quiet):
    """For each full window (by its position), whether all of its readings are quiet."""
    return sliding(quiet, WINDOW).all(axis=1)


def hourly(windows):
    return windows.reshape(len(windows), WINDOW // BLOCK, BLOCK).mean(axis=2)


# --- model --------------------------------------------------------------------------------


def fit(clean, seed, offset_noise=OFFSET_NOISE, step_noise=STEP_NOISE):
    """Adam on the squared error between the reconstruction of a disturbed window and the clean one.

    The disturbance is one offset for the whole window and a smaller one for each step, so the network
    learns to pull a window at an unusual level or of an unusual shape back to where healthy ones lie.
    """
    rng = np.random.default_rng(seed)
    steps_in = WINDOW // BLOCK
    sizes = [steps_in, HIDDEN, BOTTLENECK, HIDDEN, steps_in]
    layers = len(sizes) - 1
    parameters = []
    for a, b in zip(sizes[:-1], sizes[1:]):
        parameters += [rng.normal(0, np.sqrt(1 / a), (a, b)), np.zeros(b)]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    total, step = EPOCHS * (len(clean) // BATCH), 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(clean))
        for start in range(0, len(clean) - BATCH + 1, BATCH):
            target = clean[order[start : start + BATCH]]
            disturbed = target + rng.normal(0, step_noise, target.shape)
            disturbed = disturbed + rng.normal(0, offset_noise, (len(target), 1))
            outputs = [disturbed]
            for k in range(layers):
                z = outputs[-1] @ parameters[2 * k] + parameters[2 * k + 1]
                outputs.append(np.tanh(z) if k < layers - 1 else z)
            slope = 2 * (outputs[-1] - target) / len(target)
            gradients = [None] * len(parameters)
            for k in reversed(range(layers)):
                if k < layers - 1:
                    slope = slope * (1 - outputs[k + 1] ** 2)
                gradients[2 * k] = outputs[k].T @ slope + WEIGHT_DECAY * parameters[2 * k]
                gradients[2 * k + 1] = slope.sum(axis=0)
                slope = slope @ parameters[2 * k].T
            step += 1
            rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / total))
            for p, m, v, g in zip(parameters, first, second, gradients):
                m *= 0.9
                m += 0.1 * g
                v *= 0.999
                v += 0.001 * g**2
                p -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return parameters


def run(parameters, windows):
    """The graph in numpy: score and expected value, both in training standard deviations."""
    steps = hourly(windows)
    out = steps
    layers = len(parameters) // 2
    for k in range(layers):
        out = out @ parameters[2 * k] + parameters[2 * k + 1]
        if k < layers - 1:
            out = np.tanh(out)
    return np.sqrt(((steps - out) ** 2).mean(axis=1)), out[:, -1]


def export(parameters, path):
    """Write the graph: hourly means, network, root mean square error."""
    steps = WINDOW // BLOCK
    pool = np.zeros((WINDOW, steps))
    pool[np.arange(WINDOW), np.arange(WINDOW) // BLOCK] = 1 / BLOCK
    last = np.zeros((steps, 1))
    last[-1] = 1
    constants, nodes = {"pool": pool, "last": last}, []
    nodes.append(helper.make_node("MatMul", ["window", "pool"], ["steps"]))
    value, layers = "steps", len(parameters) // 2
    for k in range(layers):
        constants[f"w{k}"], constants[f"b{k}"] = parameters[2 * k], parameters[2 * k + 1]
        nodes.append(helper.make_node("MatMul", [value, f"w{k}"], [f"m{k}"]))
        nodes.append(helper.make_node("Add", [f"m{k}", f"b{k}"], [f"a{k}"]))
        value = f"a{k}"
        if k < layers - 1:
            nodes.append(helper.make_node("Tanh", [value], [f"t{k}"]))
            value = f"t{k}"
    nodes.append(helper.make_node("MatMul", [value, "last"], ["expected"]))
    nodes.append(helper.make_node("Sub", ["steps", value], ["error"]))
    nodes.append(helper.make_node("Mul", ["error", "error"], ["squared"]))
    nodes.append(helper.make_node("ReduceMean", ["squared"], ["mean"], axes=[1], keepdims=1))
    nodes.append(helper.make_node("Sqrt", ["mean"], ["score"]))
    # Only the batch dimension of inputs and outputs is named, and there is no value_info: tract 0.23
    # loads this as it stands, with the batch pinned to 1 and with a symbolic batch.
    tensor = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(
        nodes,
        "machine-temperature",
        [tensor("window", WINDOW)],
        [tensor("score", 1), tensor("expected", 1)],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="forebay", ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def run_onnx(path, windows):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    score, expected = session.run(["score", "expected"], {"window": windows.astype(np.float32)})
    return score[:, 0].astype(float), expected[:, 0].astype(float)


# --- alert rule and measures --------------------------------------------------------------


def per_row(scores):
    """Scores by row; rows before the first full window have none."""
    return np.concatenate([np.full(WINDOW - 1, np.nan), scores])


def thresholds(scores, windows_quiet, headroom=HEADROOM):
    """`raise` and `clear`, from rows labelled quiet inside the training span only.

    A score holds at a row when it was reached at all of the last RAISE_AFTER rows.
    """
    held = sliding(scores, RAISE_AFTER).min(axis=1)
    level = round(headroom * held[windows_quiet[RAISE_AFTER - 1 :]].max(), 4)
    return level, round(CLEAR_RATIO * level, 4)


def alerts(scores, level, clear):
    """The gateway's rule over scores by row: opening rows, and whether an alert is open at each row."""
    is_open, streak, opened = False, 0, []
    state = np.zeros(len(scores), bool)
    for i, score in enumerate(scores):
        if np.isnan(score):
            continue
        if not is_open:
            streak = streak + 1 if score >= level else 0
            if streak == RAISE_AFTER:
                is_open, streak = True, 0
                opened.append(i)
        else:
            streak = streak + 1 if score < clear else 0
            if streak == CLEAR_AFTER:
                is_open, streak = False, 0
        state[i] = is_open
    return opened, state


def nab_score(detections, spans):
    """Unscaled score of this one file under NAB's standard profile: perfect 4, silence -4.

    Formula: Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms", 2015; weights
    TP 1, FN 1, FP 0.11. The earliest detection in a window counts. The first 750 rows are free.
    """
    sigmoid = lambda y: -1.0 if y > 3 else 2 / (1 + np.exp(5 * y)) - 1
    best, false = [-1.0] * len(spans), 0.0
    for i in detections:
        if i < NAB_PROBATION:
            continue
        inside = [k for k, (a, b) in enumerate(spans) if a <= i <= b]
        if inside:
            a, b = spans[inside[0]]
            best[inside[0]] = max(best[inside[0]], sigmoid(-(b - i + 1) / (b - a + 1)) / sigmoid(-1))
        else:
            past = [(a, b) for a, b in spans if b < i]
            false += 0.11 * (sigmoid((i - past[-1][1]) / (past[-1][1] - past[-1][0])) if past else -1)
    return sum(best) + false


def measure(scores, level, clear, spans):
    opened, state = alerts(scores, level, clear)
    outside = np.ones(len(scores), bool)
    caught = [None] * len(spans)
    for k, (a, b) in enumerate(spans):
        outside[a : b + 1] = False
        caught[k] = next((i for i in opened if a <= i <= b), None)
    scored = ~np.isnan(scores)
    return {
        "caught": caught,
        "false": [i for i in opened if outside[i]],
        "rate": state[outside & scored].mean(),
        "touched": [bool(state[a : b + 1].any()) for a, b in spans],
        "nab_openings": nab_score(opened, spans),
        "nab_every": nab_score(np.flatnonzero(state), spans),
    }


# --- manifest -----------------------------------------------------------------------------


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return json.dumps(value)


def table(header, **pairs):
    return header + "\n" + "".join(f"{k.rstrip('_')} = {toml(v)}\n" for k, v in pairs.items())


def hours(readings):
    return round(readings / READINGS_PER_HOUR, 2)


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def build(args):
    times, values, spans = load(args.data, args.windows)
    end = (len(values) + 1) // 2
    quiet = quiet_rows(len(values), spans, end)
    mean, std = round(float(values[quiet].mean()), 6), round(float(values[quiet].std()), 6)
    windows = sliding((values - mean) / std, WINDOW)
    windows_quiet = all_quiet(quiet)
    parameters = fit(hourly(windows[windows_quiet]), SEED)

    path = args.out / "model.onnx"
    export(parameters, path)
    scores, expected = run_onnx(path, windows)
    reference, reference_expected = run(parameters, windows)
    gap = max(np.abs(scores - reference).max(), np.abs(expected - reference_expected).max())
    if gap > 1e-4:
        raise SystemExit(f"the exported graph differs from numpy by {gap:.2e}")

    level, clear = thresholds(scores, windows_quiet)
    by_row = per_row(scores)
    seen = measure(by_row, level, clear, spans)
    plain = np.abs(windows.mean(axis=1))
    plain_seen = measure(per_row(plain), *thresholds(plain, windows_quiet), spans)
    held_out = [k for k, (a, _) in enumerate(spans) if a >= end]
    later = quiet_rows(len(values), spans, len(values)) & (np.arange(len(values)) >= end)
    later_quiet = all_quiet(later)
    at = lambda i: "" if i is None else times[i]

    goldens = []
    worst = int(np.argmax(scores))
    calm = int(np.flatnonzero(windows_quiet)[windows_quiet.sum() // 2])
    for k in (calm, worst):
        sample = np.round(windows[k], 6)
        score, last = run_onnx(path, sample[None, :])
        goldens.append(
            table("[[golden]]", input=[float(v) for v in sample], score=round(score[0], 6),
                  expected=round(last[0], 6), tolerance=1e-4)
        )

    count = int(quiet.sum())
    rows = np.flatnonzero(quiet)
    parts = [
        "# Written by train.py; every figure below was measured by it.",
        table("[model]", name="machine-temperature", version=1, task="anomaly-score", file="model.onnx",
              sha256=digest(path), format="onnx", license="Apache-2.0 OR MIT",
              description="Denoising autoencoder over 12 hours of one industrial machine's temperature: "
              "score is the distance to the healthy reconstruction, expected the healthy level of the last hour"),
        table("[[input]]", name="window", datatype="FP32", shape=[-1, WINDOW], unit="degF-normalised"),
        table("[[output]]", name="score", datatype="FP32", shape=[-1, 1]),
        table("[[output]]", name="expected", datatype="FP32", shape=[-1, 1]),
        table("[training]", mean=mean, std=std, min=float(values[quiet].min()),
              max=float(values[quiet].max()), count=count, first=times[rows[0]], last=times[rows[-1]]),
        table("[normalise]", method="zscore", mean=mean, std=std),
        table("[thresholds]", raise_=level, clear=clear, raise_after=RAISE_AFTER, clear_after=CLEAR_AFTER),
        table("[provenance]", data="NAB " + SERIES,
              data_sha256=digest(args.data), data_license="MIT",
              script="models/machine-temperature/train.py", seed=SEED,
              trained_on=f"the first half of the file (rows 1 to {end}) without its two labelled anomaly windows: "
              f"{count} readings, {int(windows_quiet.sum())} windows of {WINDOW}; raise is {HEADROOM} times the highest "
              f"score that held for {RAISE_AFTER} readings in those same rows; no row inside an anomaly window was used"),
        table("[quality]", windows_caught=sum(i is not None for i in seen["caught"]), windows_total=len(spans),
              windows_caught_held_out=sum(seen["caught"][k] is not None for k in held_out),
              windows_total_held_out=len(held_out),
              false_alerts=len(seen["false"]),
              false_alerts_held_out=sum(i >= end for i in seen["false"]),
              false_alert_times=[at(i) for i in seen["false"]],
              false_positive_rate=round(seen["rate"], 5),
              alert_times=[at(i) for i in seen["caught"]],
              hours_after_window_start=[hours(i - a) for i, (a, _) in zip(seen["caught"], spans) if i is not None],
              hours_before_window_centre=[hours((a + b) / 2 - i) for i, (a, b) in zip(seen["caught"], spans) if i is not None],
              expected_r2=round(1 - ((windows[windows_quiet, -BLOCK:].mean(1) - expected[windows_quiet]) ** 2).mean()
                                / windows[windows_quiet, -BLOCK:].mean(1).var(), 3),
              expected_r2_held_out=round(1 - ((windows[later_quiet, -BLOCK:].mean(1) - expected[later_quiet]) ** 2).mean()
                                         / windows[later_quiet, -BLOCK:].mean(1).var(), 3),
              nab_score_alert_openings=round(seen["nab_openings"], 2),
              nab_score_every_reading=round(seen["nab_every"], 2),
              baseline="absolute 12-hour mean of the normalised readings under the same rule",
              baseline_windows_caught=sum(i is not None for i in plain_seen["caught"]),
              baseline_false_alerts=len(plain_seen["false"]),
              baseline_nab_score_alert_openings=round(plain_seen["nab_openings"], 2)),
        *goldens,
    ]
    (args.out / "manifest.toml").write_text("\n".join(parts))
    print(f"model.onnx     {path.stat().st_size} bytes, sha256 {digest(path)}")
    print(f"manifest.toml  {(args.out / 'manifest.toml').stat().st_size} bytes, sha256 {digest(args.out / 'manifest.toml')}")
    print(f"largest difference between onnxruntime and numpy {gap:.1e}")
    print(next(p for p in parts if p.startswith("[thresholds]")))
    print(next(p for p in parts if p.startswith("[quality]")))


# --- study --------------------------------------------------------------------------------


def study(args):
    """How the result moves when one choice moves. Prints; writes nothing."""
    times, values, spans = load(args.data, args.windows)
    half, before_first = (len(values) + 1) // 2, spans[0][0]

    def row(label, score_of, end=half, margin=0, headroom=HEADROOM, series=values, marks=spans):
        quiet = quiet_rows(len(series), marks, end, margin)
        windows = sliding((series - series[quiet].mean()) / series[quiet].std(), WINDOW)
        fits = all_quiet(quiet)
        scores = score_of(windows, fits)
        level, clear = thresholds(scores, fits, headroom)
        seen = measure(per_row(scores), level, clear, marks)
        delays = [None if i is None else round(hours(i - a), 1) for i, (a, _) in zip(seen["caught"], marks)]
        print(f"{label:<46} caught {sum(d is not None for d in delays)}/{len(marks)}  open in {sum(seen['touched'])}  "
              f"false {len(seen['false']):>2}  rate {seen['rate']:.3f}  NAB {seen['nab_openings']:>5.2f}  "
              f"every {seen['nab_every']:>8.1f}  delay h {delays}", flush=True)

    network = lambda seed, *noise: lambda w, f: run(fit(hourly(w[f]), seed, *noise), w)[0]
    for seed in range(1, 9):
        row(f"as shipped, seed {seed}", network(seed))
    for headroom in (1.0, 1.05, 1.2):
        row(f"headroom {headroom}", network(SEED), headroom=headroom)
    for offset in (0.0, 0.5, 1.5, 2.0):
        row(f"offset noise {offset}", network(SEED, offset))
    for step in (0.05, 0.25, 1.0):
        row(f"step noise {step}", network(SEED, OFFSET_NOISE, step))
    row("offset and step noise 0", network(SEED, 0.0, 0.0))
    for seed in range(1, 5):
        row(f"12 h margin round windows, seed {seed}", network(seed), margin=144)
    row("trained on the rows before the first window", network(SEED), end=before_first)
    unique = [i for i, t in enumerate(times) if i == 0 or t > max(times[max(0, i - 24) : i])]
    kept = {r: k for k, r in enumerate(unique)}
    row(f"late rows dropped ({len(values) - len(unique)})", network(SEED), end=sum(i < half for i in unique),
        series=values[unique], marks=[(kept[a], kept[b]) for a, b in spans])
    row("baseline: absolute 12 h mean", lambda w, f: np.abs(w.mean(axis=1)))
    row("baseline: absolute 12 h mean, headroom 1.0", lambda w, f: np.abs(w.mean(axis=1)), headroom=1.0)
    row("baseline: last reading", lambda w, f: np.abs(w[:, -1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = REPOSITORY / "examples" / "data"
    parser.add_argument("--data", type=Path, default=folder / "machine_temperature_system_failure.csv")
    parser.add_argument("--windows", type=Path, default=folder / "windows.json")
    parser.add_argument("--out", type=Path, default=HERE / "1", help="where model.onnx and manifest.toml go")
    parser.add_argument("--study", action="store_true", help="print the sensitivity table instead")
    args = parser.parse_args()
    (study if args.study else build)(args)


if __name__ == "__main__":
    main()
