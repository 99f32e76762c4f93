"""A version folder as the gateway reads it: model.onnx, manifest.toml, golden samples."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from importlib import metadata

import numpy

from data import Trouble
from scoring import DTYPES, WORDS, Runner

# Tensors up to this stand in the manifest itself.
INLINE = 256
# What a model of integers may differ by, as a part of its output's range: engines round at other places.
STEPS = 0.02


def classes(given):
    """--classes: a list, or a file with one on each line."""
    if not given:
        return []
    path = pathlib.Path(given)
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else given.split(",")


def text(value):
    """A string in TOML: JSON's, which has no other escapes than TOML knows."""
    return json.dumps(str(value), ensure_ascii=False)


def numbers(values):
    """A row-major list in TOML; whole numbers as they are, floats short and exact enough to come back."""
    flat = numpy.asarray(values).reshape(-1)
    if flat.dtype.kind in "OUS":
        return "[" + ", ".join(text(value) for value in flat) + "]"
    show = (lambda value: f"{float(value):.9g}") if flat.dtype.kind == "f" else (lambda value: str(int(value)))
    return "[" + ", ".join(show(value) for value in flat) + "]"


class Target:
    """Where versions are written, and what stands in every manifest."""

    @classmethod
    def of(cls, args, source):
        target, about = cls(), source.manifest.get("model", {})
        target.args = args
        target.name = args.name or about.get("name")
        target.license = args.license or about.get("license")
        if not target.name:
            raise Trouble("say the model's name in the repository: --name NAME")
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", target.name):
            raise Trouble(f"--name {target.name!r}: 1 to 64 letters, digits, `_`, `-` and `.`, not beginning with `.`")
        if not target.license:
            raise Trouble("say the licence of the weights, which a manifest must have: --license SPDX, such as MIT or Apache-2.0")
        target.description = args.description or about.get("description", "")
        target.task = about.get("task") or (args.task or "")
        target.root = pathlib.Path(args.out) / target.name
        if args.version is not None and args.version < (2 if args.keep_float else 1):
            raise Trouble("--version counts from 1, and from 2 with --keep-float, which is the version before")
        there = [int(path.name) for path in target.root.glob("*") if path.name.isdigit()] if target.root.is_dir() else []
        newest = max(there, default=0)
        target.float_version = (args.version or newest + 2) - 1 if args.keep_float else None
        target.version = args.version or newest + (2 if args.keep_float else 1)
        for version in filter(lambda version: version is not None, [target.float_version, target.version]):
            if version in there and not args.replace:
                raise Trouble(f"{target.folder(version)} is there already: --replace overwrites it, --version names another")
        return target

    def folder(self, version):
        return self.root / str(version)

    def write(self, version, source, model, form, rows, outputs, names, facts):
        """All of the version at once, by a rename: a gateway that looks meanwhile sees nothing of it."""
        self.root.mkdir(parents=True, exist_ok=True)
        runner = Runner(model, f"version {version}")
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.root) as new:
            folder = pathlib.Path(new) / "version"
            folder.mkdir()
            (folder / "model.onnx").write_bytes(model)
            samples = "\n".join(self.samples(folder, runner, model, form, rows, outputs))
            manifest = self.manifest(version, source, runner, model, form, outputs, names, facts)
            (folder / "manifest.toml").write_text(manifest + "\n" + samples, encoding="utf-8")
            place = self.folder(version)
            if place.exists():
                shutil.rmtree(place)
            os.rename(folder, place)
        print(f"wrote {place}")

    def manifest(self, version, source, runner, model, form, outputs, names, facts):
        said = "float" if form == "float" else f"int8, {form}"
        lines = [
            "# Written by models/tools/quantise.py; every figure below was measured by it.", "[model]", f"name = {text(self.name)}",
            f"version = {version}", *([f"task = {text(self.task)}"] if self.task else []), 'file = "model.onnx"',
            f'sha256 = "{hashlib.sha256(model).hexdigest()}"', 'format = "onnx"', f"license = {text(self.license)}",
            f"description = {text(f'{self.description} ({said})'.strip())}", "",
        ]
        known = {port["name"]: port for kind in ("input", "output") for port in source.manifest.get(kind, [])}
        for kind, ports in [("input", runner.inputs), ("output", runner.outputs)]:
            for port in ports:
                shape = [dim if isinstance(dim, int) else -1 for dim in port.shape]
                if kind == "output":
                    # Exporters are often wrong about outputs; what came out is not.
                    came = outputs[port.name]
                    shape = [-1 if runner.is_batched else 1, *came.shape[1:]]
                lines += [f"[[{kind}]]", f"name = {text(port.name)}", f'datatype = "{WORDS[DTYPES[port.type]]}"', f"shape = {shape}"]
                before = known.get(port.name, {})
                if "unit" in before:
                    lines.append(f"unit = {text(before['unit'])}")
                labels = before.get("labels") if isinstance(before.get("labels"), list) else None
                if kind == "output" and not labels and names:
                    is_scores = len(shape) == 2 and shape[1] == len(names)
                    labels = names if is_scores or (len(shape) == 1 and DTYPES[port.type].startswith("int")) else None
                    # A label that is a class's own number needs its names only where they are places in the list.
                    if len(shape) == 1 and names != [str(at) for at in range(len(names))]:
                        labels = None
                if labels:
                    lines.append(f"labels = [{', '.join(text(label) for label in labels)}]")
                lines.append("")
        if source.predict:
            lines += [source.predict, ""]
        made_by = ", ".join(f"{package} {metadata.version(package)}" for package in ("onnx", "onnxruntime"))
        lines += ["[provenance]", f"source = {text(source.said)}", f"form = {text(form)}", f"made_by = {text(made_by)}"]
        if form != "float":
            lines.append(f"calibration_rows = {facts['calibrated']}")
        lines += ["", "[quality]", f"data = {text(facts['data'])}", f"rows = {facts['rows']}"]
        for when, score in [("float", facts["before"]), ("int8", facts["after"])]:
            if score and (when == "float" or form != "float"):
                word = "top1" if score.task == "classification" else "rmse"
                lines.append(f"{word}_{when} = {score.value:.9g}" if score.value % 1 else f"{word}_{when} = {score.value:.1f}")
                if score.task == "regression":
                    lines.append(f"largest_deviation_{when} = {float(score.worst)!r}")
        if form != "float":
            lines += [f"against_float = {text(facts['agreement'])}", f"bytes_float = {facts['bytes_before']}", f"bytes_int8 = {facts['bytes_after']}"]
        return "\n".join(lines) + "\n"

    def samples(self, folder, runner, model, form, rows, outputs):
        """Golden samples: rows that no rounding turns into another class."""
        places = chosen(outputs, self.args.golden)
        tolerance, relative = 1e-4, 1e-3
        if form not in ("float", "weights"):
            # Computed once more without the runtime's own integer kernels: that far apart are two who are both right.
            plain = Runner(model, "the model without optimisations", optimised=False)
            for at in places:
                one, other = [side.all({name: values[at : at + 1] for name, values in rows.items()}) for side in (runner, plain)]
                for name, values in one.items():
                    if values.dtype.kind == "f":
                        spread = float(outputs[name].max() - outputs[name].min())
                        tolerance = max(tolerance, STEPS * spread, 4 * float(numpy.abs(values - other[name]).max()))
        for number, at in enumerate(places, 1):
            row = {name: values[at : at + 1] for name, values in rows.items()}
            answer = runner.all(row)
            # A whole number within a tolerance of one or more would be no check.
            answer = {name: values for name, values in answer.items() if values.dtype.kind in "fOUS" or tolerance < 1}
            tell = lambda side, arrays: ", ".join(f"{text(name)} = {self.tensor(folder, f'golden-{number}-{side}-{at}.npy', values)}"
                                                  for at, (name, values) in enumerate(arrays.items()))
            yield (f"[[golden]]\ninput = {{ {tell('in', row)} }}\noutput = {{ {tell('out', answer)} }}\n"
                   f"tolerance = {tolerance:.6f}\nrelative_tolerance = {relative}\n")

    @staticmethod
    def tensor(folder, file, values):
        if values.size <= INLINE:
            return numbers(values)
        values = values.astype(str) if values.dtype.kind == "O" else values
        numpy.save(folder / file, numpy.ascontiguousarray(values), allow_pickle=False)
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        return f'{{ file = "{file}", sha256 = "{digest}" }}'


def chosen(outputs, count):
    """The surest row of each of so many classes; the first ones where there are no classes."""
    scores = next((values for values in outputs.values() if values.dtype.kind == "f" and values.ndim == 2 and values.shape[1] > 1), None)
    total = len(next(iter(outputs.values())))
    if scores is None:
        return list(range(min(count, total)))
    ordered = numpy.sort(scores, axis=1)
    margin, winner = ordered[:, -1] - ordered[:, -2], scores.argmax(axis=1)
    best = [int(numpy.flatnonzero(winner == one)[margin[winner == one].argmax()]) for one in numpy.unique(winner)]
    best.sort(key=lambda at: -margin[at])
    return best[:count]
