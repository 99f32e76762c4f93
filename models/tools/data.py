"""Rows to calibrate with and to be judged by, and the one kind of error that is told without a traceback."""
import csv
import importlib
import pathlib

TASKS = ["classification", "regression"]
# What people call the label.
LABELS = ["y", "label", "labels", "target", "class"]


class Trouble(Exception):
    """Why it cannot be done, and what would help."""


def need(package, requirements, pip=None):
    """The module, or which line installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        folder = pathlib.Path(__file__).parent
        missing = getattr(error, "name", None) or package
        raise Trouble(f"{missing} cannot be imported ({error}): pip install -r {folder / requirements}") from error


class Table:
    """Arrays by name, or one array for a model's only input; labels, if there are any."""

    def __init__(self, inputs, labels):
        self.inputs, self.labels = inputs, labels

    def __len__(self):
        return len(next(iter(self.inputs.values())))


def read(path, label, wants_labels):
    numpy = need("numpy", "requirements.txt")
    path = pathlib.Path(path)
    if not path.is_file():
        raise Trouble(f"no file {path}")
    table = from_npz(numpy, path) if path.suffix == ".npz" else from_csv(numpy, path, label, wants_labels)
    if len(table) == 0:
        raise Trouble(f"{path} has no rows")
    for name, values in table.inputs.items():
        if len(values) != len(table):
            raise Trouble(f"{path}: {name} has {len(values)} rows, another array has {len(table)}")
        if values.dtype.kind == "f" and not numpy.isfinite(values).all():
            raise Trouble(f"{path}: {name} has nan or infinity, which the gateway refuses as well")
    if wants_labels:
        if table.labels is None:
            raise Trouble(f"{path} has no labels: an array {' or '.join(LABELS[:2])} (.npz), a column named by --label (.csv), or --no-labels")
        if len(table.labels) != len(table):
            raise Trouble(f"{path} has {len(table)} rows and {len(table.labels)} labels")
    return table


def from_npz(numpy, path):
    try:
        # No pickles: they could run code.
        with numpy.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:
        raise Trouble(f"{path} is no .npz of plain arrays, as numpy.savez writes it: {error}") from error
    labels = next((arrays.pop(name) for name in [*LABELS, "Y"] if name in arrays), None)
    if not arrays:
        raise Trouble(f"{path} has no inputs: an array x, or one for each input by its name")
    scalar = next((name for name, values in arrays.items() if values.ndim == 0), None)
    if scalar:
        raise Trouble(f"{path}: {scalar} is a single value, expected an array with a row for each example")
    return Table(arrays, labels)


def from_csv(numpy, path, label, wants_labels):
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Trouble(f"{path} is neither .npz nor CSV in UTF-8: {error}") from error
    if not lines:
        raise Trouble(f"{path} has no rows")
    is_number = [number(cell) is not None for cell in lines[0]]
    head = None if any(is_number) else lines.pop(0)
    width = len(head or (lines or [[]])[0])
    short = next((at for at, line in enumerate(lines) if len(line) != width), None)
    if short is not None:
        raise Trouble(f"{path}, row {short + 1}: {len(lines[short])} cells, expected {width}")
    at = column(path, label, head, width, wants_labels)
    features = [place for place in range(width) if place != at]
    rows = numpy.empty((len(lines), len(features)), dtype=numpy.float32)
    for row, line in enumerate(lines):
        for place, feature in enumerate(features):
            value = number(line[feature])
            if value is None:
                name = head[feature] if head else f"column {feature}"
                raise Trouble(f"{path}, row {row + 1}, {name}: {line[feature]!r} is no number")
            rows[row, place] = value
    labels = None
    if at is not None:
        cells = [line[at] for line in lines]
        values = [number(cell) for cell in cells]
        if any(value is None for value in values):
            labels = numpy.array(cells)
        else:
            labels = numpy.array(values)
            whole = labels.astype(numpy.int64)
            labels = whole if (whole == labels).all() and not any("." in cell for cell in cells) else labels
    return Table({"x": rows}, labels)


def column(path, label, head, width, wants_labels):
    """The place of the label."""
    if label is None:
        usual = next((head.index(name) for name in LABELS if head and name in head), None)
        if usual is None and wants_labels:
            there = ", ".join(head) if head else f"{width} columns without names"
            raise Trouble(f"{path} has no column {' or '.join(LABELS)}: name the label's with --label, or say --no-labels; there is {there}")
        return usual
    if head and label in head:
        return head.index(label)
    place = int(label) if label.lstrip("-").isdigit() else None
    if place is None or not -width <= place < width:
        raise Trouble(f"{path} has no column {label!r}: there is {', '.join(head) if head else f'0 to {width - 1}'}")
    return place % width


def number(cell):
    try:
        return float(cell)
    except ValueError:
        return None
