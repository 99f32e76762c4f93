"""What users have, as ONNX: only the packages of the path that is taken are imported."""
import importlib.util
import pathlib
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field

from data import Trouble, need


@dataclass
class Source:
    """A float model as the bytes of an ONNX file, and what is known of it."""

    model: bytes
    said: str
    classes: list = field(default_factory=list)
    # Of a version folder: its manifest, and the text of its [[predict...]] tables.
    manifest: dict = field(default_factory=dict)
    predict: str = ""


def from_function(source, what):
    """FILE.py:FUNCTION, called. None if it is no such thing. It runs the file: it is the user's own."""
    file, colon, name = source.rpartition(":")
    if not colon or not file.endswith(".py"):
        return None
    path = pathlib.Path(file)
    if not path.is_file():
        raise Trouble(f"no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise Trouble(f"{path} has no function {name}: it shall return {what}, or that and an example input")
    made = function()
    return made if isinstance(made, tuple) else (made, None)


def example_of(table):
    """The first row of each input, in the order of the file."""
    return tuple(values[:1] for values in table.inputs.values())


def of_onnx(args, table, scratch):
    path = pathlib.Path(args.source)
    manifest, predict = {}, ""
    if path.is_dir():
        if not (path / "manifest.toml").is_file():
            raise Trouble(f"{path} has no manifest.toml: name a version folder NAME/VERSION or a .onnx file")
        text = (path / "manifest.toml").read_text(encoding="utf-8")
        try:
            manifest = tomllib.loads(text)
            path = path / manifest["model"]["file"]
        except (tomllib.TOMLDecodeError, KeyError) as error:
            raise Trouble(f"{path / 'manifest.toml'}: {error}") from error
        predict = tables(text, "predict")
    onnx = need("onnx", "requirements.txt")
    try:
        # One file: what lies in a second one is brought in.
        model = onnx.load(path).SerializeToString()
    except Exception as error:
        raise Trouble(f"{path} cannot be read as ONNX: {error}") from error
    classes = next((port["labels"] for port in manifest.get("output", []) if isinstance(port.get("labels"), list)), [])
    return Source(model, str(args.source), classes, manifest, predict)


def tables(text, name):
    """The lines of a manifest's tables of this name and below, as they stand."""
    kept, is_in = [], False
    for line in text.splitlines():
        head = line.strip()
        if head.startswith("["):
            title = head.strip("[] ").split("]")[0].strip()
            # A line within a list of tables begins so, too; a table's own has a name behind.
            if title and title[0].isalpha():
                is_in = title == name or title.startswith(f"{name}.")
        if is_in:
            kept.append(line)
    return "\n".join(kept).strip()


def of_sklearn(args, table, scratch):
    need("sklearn", "requirements-sklearn.txt")
    skl2onnx = need("skl2onnx", "requirements-sklearn.txt")
    numpy = need("numpy", "requirements.txt")
    made = from_function(args.source, "a fitted estimator")
    if made is None:
        path = pathlib.Path(args.source)
        if not path.is_file():
            raise Trouble(f"no file {path}: a fitted estimator as joblib.dump wrote it, or FILE.py:FUNCTION")
        try:
            # A pickle runs what it holds; it is the user's own.
            made = (need("joblib", "requirements-sklearn.txt").load(path), None)
        except Exception as error:
            raise Trouble(f"{path} is no estimator that joblib.dump wrote: {error}") from error
    estimator, example = made
    if not hasattr(estimator, "predict"):
        raise Trouble(f"{args.source} is a {type(estimator).__name__}, expected a fitted estimator")
    if len(table.inputs) != 1:
        raise Trouble(f"an estimator takes one table, the data has {', '.join(table.inputs)}")
    row = (example_of(table)[0] if example is None else numpy.asarray(example)[:1]).astype(numpy.float32)
    wanted = getattr(estimator, "n_features_in_", row.shape[-1])
    if row.ndim != 2 or row.shape[1] != wanted:
        raise Trouble(f"the estimator takes rows of {wanted} features, the data has the shape {list(next(iter(table.inputs.values())).shape)}")
    # Probabilities as a tensor, not as a list of maps.
    options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
    try:
        model = skl2onnx.to_onnx(estimator, row, options=options, target_opset={"": args.opset, "ai.onnx.ml": 3})
    except Exception as error:
        raise Trouble(f"skl2onnx cannot convert {type(estimator).__name__}: {error}") from error
    classes = [str(name) for name in getattr(estimator, "classes_", [])]
    return Source(model.SerializeToString(), f"scikit-learn {type(estimator).__name__}", classes)


def of_torch(args, table, scratch):
    torch = need("torch", "requirements-torch.txt")
    made = from_function(args.source, "a torch.nn.Module")
    if made is None:
        raise Trouble("PyTorch's models are code: name FILE.py:FUNCTION that returns the module with its weights, or that and an example input")
    module, example = made
    if not isinstance(module, torch.nn.Module):
        raise Trouble(f"{args.source} returned a {type(module).__name__}, expected a torch.nn.Module")
    example = example_of(table) if example is None else example if isinstance(example, (tuple, list)) else (example,)
    tensors = tuple(torch.as_tensor(value)[:1] for value in example)
    tensors = tuple(value.float() if value.is_floating_point() else value for value in tensors)
    names = list(table.inputs) if len(table.inputs) == len(tensors) else [f"input{at}" for at in range(len(tensors))]
    module.eval()
    path = pathlib.Path(scratch) / "exported.onnx"
    try:
        with torch.no_grad():
            outputs = module(*tensors)
    except Exception as error:
        shapes = ", ".join(str(list(value.shape)) for value in tensors)
        raise Trouble(f"the module does not take inputs of {shapes}: {error}") from error
    count = len(outputs) if isinstance(outputs, (tuple, list)) else 1
    outputs = [f"output{at}" for at in range(count)] if count > 1 else ["output"]
    free = {name: {0: "batch"} for name in [*names, *outputs]}
    try:
        # The exporter without onnxscript; what it cannot trace, an exported .onnx file can be.
        torch.onnx.export(module, tensors, str(path), input_names=names, output_names=outputs, dynamic_axes=free,
                          opset_version=args.opset, dynamo=False)
    except Exception as error:
        raise Trouble(f"torch.onnx.export failed: {error}; export it yourself and begin with `onnx FILE`") from error
    return Source(path.read_bytes(), f"PyTorch {type(module).__name__}")


def of_keras(args, table, scratch):
    made = from_function(args.source, "a Keras model")
    need("tensorflow", "requirements-tensorflow.txt")
    need("tf2onnx", "requirements-tensorflow.txt")
    path, exported = pathlib.Path(args.source), pathlib.Path(scratch) / "exported.onnx"
    if made is None and not path.exists():
        raise Trouble(f"no SavedModel folder, .keras or .h5 file {path}")
    if made is not None or path.is_file():
        import tensorflow

        model = made[0] if made else tensorflow.keras.models.load_model(path)
        # Its SavedModel has the signature that tf2onnx reads, whatever wrote the model.
        path = pathlib.Path(scratch) / "saved"
        model.export(str(path))
    # A process of its own: tf2onnx speaks to its users there, and TensorFlow's memory goes with it.
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(path), "--opset", str(args.opset), "--output", str(exported)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 or not exported.is_file():
        raise Trouble(f"tf2onnx cannot convert {args.source}: {done.stderr.strip().splitlines()[-1:]}")
    return Source(exported.read_bytes(), "TensorFlow")


FRAMEWORKS = {"onnx": of_onnx, "sklearn": of_sklearn, "torch": of_torch, "keras": of_keras}
