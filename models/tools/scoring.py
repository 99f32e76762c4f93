"""What a model answers, by ONNX Runtime on one thread, and how right that is."""
from dataclasses import dataclass

import numpy

from data import Trouble

# Rows of one run.
BATCH = 64
DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool", "tensor(string)": "object",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
WORDS = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "bool": "BOOL", "object": "BYTES"}
WORDS |= {f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


@dataclass
class Score:
    task: str
    # Top-1, or the root of the mean square of deviations.
    value: float
    worst: float = 0.0


class Runner:
    """A model in ONNX Runtime."""

    def __init__(self, model, said, optimised=True):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        if not optimised:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self.session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise Trouble(f"ONNX Runtime does not load {said}: {error}") from error
        self.said, self.inputs = said, self.session.get_inputs()
        self.outputs = [port for port in self.session.get_outputs() if port.type in DTYPES]
        maps = [port.name for port in self.session.get_outputs() if port.type not in DTYPES]
        if maps:
            raise Trouble(f"output {maps[0]} of {said} is no tensor (ZipMap makes lists of maps): convert it with options={{'zipmap': False}}")
        odd = next((port for port in self.inputs if port.type not in DTYPES), None)
        if odd:
            raise Trouble(f"input {odd.name} of {said} is {odd.type}, expected a tensor")
        first = {dims[0] if (dims := port.shape) else None for port in self.inputs}
        fixed = [dim for dim in first if isinstance(dim, int)]
        if any(dim != 1 for dim in fixed):
            raise Trouble(f"{said} takes batches of {fixed[0]} only: export it with a free first dimension, or with 1")
        self.is_batched = not fixed

    def bind(self, arrays, path):
        """The data as the model's inputs, by name, or its only array for the only input."""
        if len(self.inputs) == 1 and len(arrays) == 1:
            arrays = {self.inputs[0].name: next(iter(arrays.values()))}
        names = [port.name for port in self.inputs]
        if missing := [name for name in names if name not in arrays]:
            raise Trouble(f"{path} has no array for input {missing[0]}: it has {', '.join(arrays)}, the model takes {', '.join(names)}")
        return {port.name: self.fitted(port, arrays[port.name], path) for port in self.inputs}

    @staticmethod
    def fitted(port, values, path):
        dims = [dim if isinstance(dim, int) else -1 for dim in port.shape]
        wanted, inner = DTYPES[port.type], dims[1:]
        if values.ndim != len(dims) and all(dim > 0 for dim in inner) and values[0].size == int(numpy.prod(inner)):
            # A table of pixels is a picture, and the other way round.
            values = values.reshape([len(values), *inner])
        fits = values.ndim == len(dims) and all(dim in (-1, given) for dim, given in zip(inner, values.shape[1:]))
        if not fits:
            raise Trouble(f"input {port.name} takes {[-1, *inner]}, {path} has {list(values.shape)} (-1 is any size)")
        cast = values.astype(wanted)
        is_same = values.dtype.kind in "fOUS" and wanted.startswith(("float", "object")) or (cast == values).all()
        if not is_same:
            raise Trouble(f"input {port.name} takes {wanted}, {path} has {values.dtype}, which would be other numbers")
        return numpy.ascontiguousarray(cast) if wanted != "object" else cast

    def all(self, rows):
        """Every output of all rows, by name."""
        total = len(next(iter(rows.values())))
        names = [port.name for port in self.outputs]
        step, parts = BATCH if self.is_batched else 1, []
        for at in range(0, total, step):
            try:
                answer = self.session.run(names, {name: values[at : at + step] for name, values in rows.items()})
            except Exception as error:
                raise Trouble(f"{self.said} does not compute row {at}: {error}") from error
            parts.append(answer)
        outputs = {}
        for at, name in enumerate(names):
            joined = numpy.concatenate([numpy.atleast_1d(part[at]) for part in parts])
            if len(joined) != total:
                raise Trouble(f"output {name} of {self.said} has {len(joined)} rows for {total}: its first dimension is no batch")
            outputs[name] = joined
        return outputs


def classes_of(labels, names):
    """The labels as places in the output's order."""
    if labels.dtype.kind in "iub":
        return labels.astype(int)
    order = list(names) or sorted(set(labels.tolist()))
    if unknown := set(map(str, labels.tolist())) - set(map(str, order)):
        raise Trouble(f"the labels have {sorted(unknown)[0]!r}, the classes are {', '.join(map(str, order))}: name them with --classes in the output's order")
    place = {str(name): at for at, name in enumerate(order)}
    return numpy.array([place[str(label)] for label in labels])


def evaluate(outputs, labels, args, names):
    """The score of these outputs."""
    task = args.task or ("regression" if labels.dtype.kind == "f" else "classification")
    chosen = {args.output: outputs[args.output]} if args.output in outputs else outputs
    if args.output and args.output not in outputs:
        raise Trouble(f"no output {args.output}: there is {', '.join(outputs)}")
    if task == "regression":
        name, values = next(((name, values) for name, values in chosen.items() if values.dtype.kind == "f"), (None, None))
        if name is None or values.size != labels.size:
            raise Trouble(f"no output has as many numbers as there are labels ({labels.size}): name one with --output")
        apart = values.reshape(labels.shape).astype(float) - labels.astype(float)
        return Score(task, float(numpy.sqrt((apart**2).mean())), float(numpy.abs(apart).max()))
    if labels.ndim != 1:
        raise Trouble(f"labels of classes are one a row, these have the shape {list(labels.shape)}")
    # Labels of a model with texts for classes are compared as they are.
    for values in chosen.values():
        if values.dtype.kind in "OUS" and values.ndim == 1:
            return Score(task, float((values.astype(str) == labels.astype(str)).mean()))
    wanted = classes_of(labels, names)
    for values in chosen.values():
        scores = values.reshape(len(values), -1)
        if values.dtype.kind == "f" and scores.shape[1] > 1:
            if wanted.max() >= scores.shape[1]:
                continue
            # Integers are the classes' own places, unless the classes are called otherwise.
            if labels.dtype.kind in "iub" and names and [str(at) for at in range(len(names))] != list(map(str, names)):
                wanted = classes_of(labels.astype(str), names)
            return Score(task, float((scores.argmax(axis=1) == wanted).mean()))
    for values in chosen.values():
        if values.dtype.kind in "iu" and values.size == len(labels):
            return Score(task, float((values.reshape(-1) == labels).mean()))
        if values.dtype.kind == "f" and values.size == len(labels) and set(wanted.tolist()) <= {0, 1}:
            # One number for two classes: a probability, or a logit if any is beyond.
            flat = values.reshape(-1)
            edge = 0.5 if flat.min() >= 0 and flat.max() <= 1 else 0.0
            return Score(task, float(((flat > edge).astype(int) == wanted).mean()))
    shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in chosen.items())
    raise Trouble(f"no output looks like scores of {wanted.max() + 1} classes: there is {shapes}; name one with --output, or the labels' --task")


def agreement(before, after):
    """How the int8 model's answers differ from the float one's, for people."""
    words = []
    for name, values in before.items():
        other = after[name]
        if values.dtype.kind == "f":
            words.append(f"{name} differs by at most {float(numpy.abs(values - other).max()):.3g}")
        else:
            words.append(f"{name} is the same in {float((values == other).mean()):.4f} of all rows")
    return "; ".join(words)
