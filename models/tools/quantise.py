"""From PyTorch, TensorFlow, scikit-learn or ONNX to an int8 ONNX model that the gateway serves, with accuracy before and after.

    python models/tools/quantise.py sklearn model.joblib  --data digits.npz --name digits-small --license MIT --keep-float
    python models/tools/quantise.py torch   train.py:load --data images.npz --name parts --license Apache-2.0
    python models/tools/quantise.py keras   saved_model/  --data table.csv  --name press --license MIT
    python models/tools/quantise.py onnx    models/digits/1 --data digits.npz

Writes OUT/NAME/VERSION/{model.onnx, manifest.toml} and, for large tensors, golden samples as .npy. docs/quantise.md says which form to
take for which engine, and what it cost and saved where it was measured. Exit code 0: written; 1: the loss is over --max-loss, nothing is
written; 2: it cannot be done, and why.
"""
import argparse
import os
import sys
import tempfile

# ONNX Runtime from 1.29 on reports to its maker unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from data import TASKS, Trouble, need, read
from forms import FORMS
from sources import FRAMEWORKS


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=sorted(FRAMEWORKS), help="what the source is of")
    parser.add_argument("source", help="a model's file or folder, or FILE.py:FUNCTION that returns the model, or the model and an example input")
    parser.add_argument("--data", required=True, help="labelled rows: .npz with x (or the inputs' names) and y, or .csv")
    parser.add_argument("--calibration", help="rows to calibrate with, labels not needed; else a part of --data that is then not evaluated")
    parser.add_argument("--calibrate", type=int, default=256, metavar="ROWS", help="the most rows to calibrate with (256)")
    parser.add_argument("--label", help="the column of a .csv with the label: its name, or its number from 0, negative from the end")
    parser.add_argument("--no-labels", action="store_true", help="there are none: only compare the int8 model with the float one")
    parser.add_argument("--task", choices=TASKS, help="what the labels are; told by their type if absent")
    parser.add_argument("--output", help="the output that is compared with the labels; told by its shape if absent")
    parser.add_argument("--classes", help="names of the classes in the output's order: a,b,c or a file with one on each line")
    parser.add_argument("--form", choices=sorted(FORMS), default="weights", help="weights (default): int8 weights, for every engine; "
                        "qdq: integers throughout, for ONNX Runtime and NPUs; qoperator, dynamic: as ONNX Runtime calls them")
    parser.add_argument("--compare", action="store_true", help="print accuracy and size of every form, before --form is written")
    parser.add_argument("--max-loss", type=float, metavar="LOSS", help="write nothing if top-1 falls by more than this share, or the RMSE grows by more")
    parser.add_argument("--name", help="the model's name in the repository; that of the source if it is a version folder")
    parser.add_argument("--out", default="models", help="the repository (models)")
    parser.add_argument("--version", type=int, help="the int8 model's version; the next free one if absent")
    parser.add_argument("--keep-float", action="store_true", help="write the float model as well, as the version before")
    parser.add_argument("--replace", action="store_true", help="overwrite versions that are there")
    parser.add_argument("--license", help="of the weights, an SPDX expression; that of the source if it is a version folder")
    parser.add_argument("--description", help="one sentence for people")
    parser.add_argument("--golden", type=int, default=2, metavar="N", help="golden samples in each manifest (2)")
    parser.add_argument("--opset", type=int, default=17, help="ONNX operator set for exports (17)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of rows to calibrate with")
    return parser.parse_args(given)


def percent(score):
    """A score for people."""
    if score.task == "classification":
        return f"top-1 {score.value:.4f}"
    return f"RMSE {score.value:.6g}, largest deviation {score.worst:.6g}"


def told(form, model, score, agreement):
    right = percent(score) if score else "no labels"
    return f"{form:<10} {len(model):>10} bytes  {right}  {agreement}"


def main(given=None):
    args = arguments(given)
    numpy = need("numpy", "requirements.txt")
    need("onnx", "requirements.txt")
    need("onnxruntime", "requirements.txt")
    import logging

    import forms
    import repository
    from scoring import Runner, agreement, evaluate

    # The quantiser's advice on forms is for its own engine.
    logging.getLogger().setLevel(logging.ERROR)
    table = read(args.data, args.label, wants_labels=not args.no_labels)
    with tempfile.TemporaryDirectory() as scratch:
        source = FRAMEWORKS[args.framework](args, table, scratch)
        target = repository.Target.of(args, source)
        classes = repository.classes(args.classes) or source.classes
        float_runner = Runner(source.model, "the float model")
        rows = float_runner.bind(table.inputs, args.data)
        if args.calibration:
            calibration = float_runner.bind(read(args.calibration, args.label, wants_labels=False).inputs, args.calibration)
            judged = numpy.arange(len(table))
        else:
            chance = numpy.random.default_rng(args.seed).permutation(len(table))
            part = min(args.calibrate, max(1, len(table) // 4)) if FORMS[args.form].calibrates or args.compare else 0
            calibration = {name: values[chance[:part]] for name, values in rows.items()}
            judged = numpy.sort(chance[part:])
        if len(judged) == 0:
            raise Trouble(f"{args.data} has {len(table)} row, which cannot calibrate and judge: give more, or --calibration FILE")
        calibration = {name: values[: args.calibrate] for name, values in calibration.items()}
        rows = {name: values[judged] for name, values in rows.items()}
        labels = None if args.no_labels else table.labels[judged]
        print(f"{len(judged)} rows are evaluated; {len(next(iter(calibration.values())))} calibrate")

        before = float_runner.all(rows)
        score = None if labels is None else evaluate(before, labels, args, classes)
        print(told("float", source.model, score, ""))
        tried = {}
        for form in [name for name in FORMS if name == args.form or args.compare]:
            try:
                model = forms.make(form, source.model, calibration, scratch)
                outputs = Runner(model, f"form {form}").all(rows)
            except Trouble as trouble:
                if form == args.form:
                    raise
                print(f"{form:<10} {trouble}")
                continue
            after = None if labels is None else evaluate(outputs, labels, args, classes)
            tried[form] = (model, outputs, after, agreement(before, outputs))
            print(told(form, *[tried[form][at] for at in (0, 2, 3)]))

        model, outputs, after, agree = tried[args.form]
        if score and args.max_loss is not None:
            loss = score.value - after.value if score.task == "classification" else after.value / max(score.value, 1e-30) - 1
            if loss > args.max_loss:
                print(f"nothing is written: the loss is {loss:.4f}, --max-loss allows {args.max_loss:g}", file=sys.stderr)
                return 1
        facts = {
            "form": args.form, "calibrated": len(next(iter(calibration.values()))) if FORMS[args.form].calibrates else 0,
            "rows": len(judged), "data": os.path.basename(args.data), "before": score, "after": after, "agreement": agree,
            "bytes_before": len(source.model), "bytes_after": len(model),
        }
        if args.keep_float:
            target.write(target.float_version, source, source.model, "float", rows, before, classes, facts)
        target.write(target.version, source, model, args.form, rows, outputs, classes, facts)
        print(f"measure it here: forebay model bench {target.folder(target.version)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Trouble as trouble:
        print(f"quantise.py: {trouble}", file=sys.stderr)
        sys.exit(2)
