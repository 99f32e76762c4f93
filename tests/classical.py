"""Trains what people train with scikit-learn, XGBoost and LightGBM, converts it to ONNX, and writes what ONNX Runtime says.

    python tests/classical.py FOLDER

Each FOLDER/<case>/ gets model.onnx and case.json with batches of inputs and outputs; tensors lie beside it in the protocol's
binary form. The ONNX project's own node tests for ai.onnx.ml come along as cases node_<name>.
"""

import glob
import json
import os
import pathlib
import sys
import warnings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
warnings.filterwarnings("ignore")
try:
    import numpy as np
    import onnx
    import onnxruntime as ort
    import skl2onnx
    import sklearn
    from lightgbm import LGBMClassifier, LGBMRegressor
    from onnx import TensorProto, helper, numpy_helper
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from xgboost import XGBClassifier, XGBRegressor
except ImportError as error:
    sys.exit(f"{error}: make tools-test installs what is needed; name the interpreter in FOREBAY_PYTHON")
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes as classes_shape
from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes as numbers_shape
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (AdaBoostClassifier, BaggingClassifier, ExtraTreesClassifier, GradientBoostingClassifier,
                              GradientBoostingRegressor, IsolationForest, RandomForestClassifier, RandomForestRegressor,
                              StackingClassifier, VotingRegressor)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.cluster import KMeans
from sklearn.feature_selection import SelectKBest
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (Binarizer, MinMaxScaler, Normalizer, OneHotEncoder, OrdinalEncoder, PolynomialFeatures,
                                   PowerTransformer, RobustScaler, StandardScaler)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

options = {"zipmap": [True, False, "columns"], "nocl": [True, False], "raw_scores": [True, False]}
update_registered_converter(LGBMClassifier, "LgbmC", classes_shape, convert_lightgbm, options=options)
update_registered_converter(LGBMRegressor, "LgbmR", numbers_shape, convert_lightgbm, options={"split": None})
update_registered_converter(XGBClassifier, "XgbC", classes_shape, convert_xgboost, options=options)
update_registered_converter(XGBRegressor, "XgbR", numbers_shape, convert_xgboost)

OUT = pathlib.Path(sys.argv[1])
RNG = np.random.default_rng(7)
WORDS = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "bool": "BOOL"}
WORDS |= {f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


def tensor(folder, file, array):
    """Writes an array in the protocol's form and says what it is."""
    array = np.asarray(array)
    if array.dtype.kind in "OUS":
        texts = [str(text).encode() for text in array.ravel()]
        data, word = b"".join(len(text).to_bytes(4, "little") + text for text in texts), "BYTES"
    else:
        data, word = np.ascontiguousarray(array).tobytes(), WORDS[array.dtype.name]
    (folder / file).write_bytes(data)
    return {"file": file, "datatype": word, "shape": list(array.shape)}


def rows_of_maps(output):
    """What ZipMap made of a tensor, as that tensor."""
    return np.array([list(row.values()) for row in output], dtype=np.float32) if isinstance(output, list) else output


def write(name, model, batches, expected=None, tolerance=1e-5):
    folder = OUT / name
    folder.mkdir(parents=True)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    told = []
    settings = ort.SessionOptions()
    # Several threads add trees up in another order, and ties fall otherwise with every size of a batch.
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    session = None if expected else ort.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    for number, inputs in enumerate(batches):
        if session:
            try:
                outputs = session.run(None, inputs)
            except Exception:  # The reference has no answer either, to an empty batch for one.
                outputs = None
            named = {} if outputs is None else dict(zip([out.name for out in session.get_outputs()], outputs))
            # A list of no maps does not say how many classes there are.
            named = {key: value for key, value in named.items() if not (isinstance(value, list) and not value)}
        else:
            named = expected[number]
        told.append({
            "inputs": {key: tensor(folder, f"{number}.{at}.in", value) for at, (key, value) in enumerate(inputs.items())},
            "outputs": {key: tensor(folder, f"{number}.{at}.out", rows_of_maps(value))
                        for at, (key, value) in enumerate(named.items())},
        })
    (folder / "case.json").write_text(json.dumps({"tolerance": tolerance, "batches": told}))


X = RNG.normal(size=(400, 6)).astype(np.float32)
SIGNAL = X @ np.array([2, -1, 0.5, 0, 0.3, 1]) + RNG.normal(size=400) * 0.3
TWO = (SIGNAL > 0).astype(int)
THREE = np.digitize(SIGNAL, [-1.5, 1.5])
NAMES = np.array(["low", "mid", "high"])[THREE]
SIZES = (1, 2, 7, 8, 9, 64, 65, 1000)


def rows(count, width=6, scale=1.5):
    return (RNG.normal(size=(count, width)) * scale).astype(np.float32)


def odd(width=6):
    """nan, infinities and numbers at the edge, one a row and all together."""
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45]
    table = rows(len(values) + 1, width)
    for at, value in enumerate(values):
        table[at, at % width] = value
    table[-1] = np.nan
    return np.vstack([table, table, table])


def batches(odd_ones, sizes=SIZES, width=6, dtype=np.float32):
    tables = [rows(count, width) for count in (*sizes, 0)] + ([odd(width)] if odd_ones else [])
    return [{"X": table.astype(dtype)} for table in tables]


def convert(model, **more):
    more.setdefault("target_opset", {"": 18, "ai.onnx.ml": 3})
    return to_onnx(model, initial_types=[("X", FloatTensorType([None, 6]))], **more)


def fitted(model, y):
    return model.fit(X, y)


def estimators():
    forest = RandomForestClassifier(30, max_depth=10, random_state=0)
    nozip = lambda model: {id(model): {"zipmap": False}}
    for name, y in (("two", TWO), ("three", THREE), ("names", NAMES)):
        yield f"forest_{name}", fitted(RandomForestClassifier(30, max_depth=10, random_state=0), y), True, {}
        yield f"tree_{name}", fitted(DecisionTreeClassifier(random_state=0), y), True, {}
        yield f"extra_{name}", fitted(ExtraTreesClassifier(20, random_state=0), y), True, {}
        yield f"boosting_{name}", fitted(GradientBoostingClassifier(n_estimators=20, random_state=0), y), True, {}
        yield f"logistic_{name}", fitted(LogisticRegression(), y), False, {}
        yield f"logistic_one_{name}", fitted(LogisticRegression(solver="liblinear") if name == "two" else
                                             OneVsRestClassifier(LogisticRegression()), y), False, {}
        yield f"ridge_{name}", fitted(RidgeClassifier(), y), False, {}
        yield f"linear_svc_{name}", fitted(LinearSVC(), y), False, {}
        yield f"sgd_{name}", fitted(SGDClassifier(loss="log_loss", random_state=0), y), False, {}
        yield f"bayes_{name}", fitted(GaussianNB(), y), False, {}
        yield f"mlp_{name}", fitted(MLPClassifier((8,), max_iter=60, random_state=0), y), False, {}
        yield f"lda_{name}", fitted(LinearDiscriminantAnalysis(), y), False, {}
        yield f"bagging_{name}", fitted(BaggingClassifier(n_estimators=4, random_state=0), y), False, {}
        for kernel in ("rbf", "linear", "poly", "sigmoid"):
            yield f"svc_{kernel}_{name}", fitted(SVC(kernel=kernel, probability=True, random_state=0), y), False, {}
        yield f"svc_plain_{name}", fitted(SVC(), y), False, {}
        yield f"nu_svc_{name}", fitted(NuSVC(probability=True, random_state=0), y), False, {}
    yield "adaboost", fitted(AdaBoostClassifier(n_estimators=5, random_state=0), THREE), False, {}
    yield "qda", fitted(QuadraticDiscriminantAnalysis(), THREE), False, {}
    yield "calibrated", fitted(CalibratedClassifierCV(LinearSVC(), cv=2), THREE), False, {}
    yield "stacking", fitted(StackingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))]),
                             THREE), False, {}
    forest.fit(X, THREE)
    yield "forest_without_map", forest, True, {"options": nozip(forest)}
    yield "forest_deep", fitted(RandomForestClassifier(40, random_state=1), THREE), True, {}
    both = np.column_stack([SIGNAL, X[:, 0] ** 2, -SIGNAL])
    yield "forest_numbers", fitted(RandomForestRegressor(30, random_state=0), SIGNAL), True, {}
    yield "forest_columns", fitted(RandomForestRegressor(10, random_state=0), both), True, {}
    yield "tree_numbers", fitted(DecisionTreeRegressor(random_state=0), SIGNAL), True, {}
    yield "boosting_numbers", fitted(GradientBoostingRegressor(n_estimators=30, random_state=0), SIGNAL), True, {}
    yield "isolation", IsolationForest(n_estimators=25, random_state=0).fit(X), False, {}
    yield "linear_numbers", fitted(LinearRegression(), SIGNAL), False, {}
    yield "linear_columns", fitted(Ridge(), both), False, {}
    yield "linear_many", MultiOutputRegressor(LinearRegression()).fit(X, both), False, {}
    yield "mlp_numbers", fitted(MLPRegressor(hidden_layer_sizes=(8,), max_iter=60, random_state=0), SIGNAL), False, {}
    yield "voting", fitted(VotingRegressor([("a", LinearRegression()), ("b", DecisionTreeRegressor(max_depth=4))]),
                           SIGNAL), False, {}
    yield "svr", fitted(SVR(), SIGNAL), False, {}
    yield "svr_poly", fitted(SVR(kernel="poly"), SIGNAL), False, {}
    yield "linear_svr", fitted(LinearSVR(), SIGNAL), False, {}
    yield "one_class", OneClassSVM(nu=0.1).fit(X), False, {}
    yield "scaler", StandardScaler().fit(X), True, {}
    yield "robust", RobustScaler().fit(X), True, {}
    yield "binarizer", Binarizer(threshold=0.2).fit(X), True, {}
    for norm in ("l1", "l2", "max"):
        yield f"norm_{norm}", Normalizer(norm).fit(X), False, {}
    yield "best", SelectKBest(k=3).fit(X, THREE), True, {}
    yield "power", PowerTransformer().fit(X), False, {}
    yield "polynomial", make_pipeline(StandardScaler(), PolynomialFeatures(2), LinearRegression()).fit(X, SIGNAL), False, {}
    holes = X.copy()
    holes[RNG.random(holes.shape) < 0.1] = np.nan
    for strategy in ("mean", "median", "most_frequent"):
        pipe = make_pipeline(SimpleImputer(strategy=strategy), StandardScaler(), LogisticRegression()).fit(holes, THREE)
        yield f"pipe_{strategy}", pipe, False, {}
    yield "pipe_forest", make_pipeline(SimpleImputer(), RandomForestClassifier(10, random_state=0)).fit(holes, NAMES), True, {}
    yield "pipe_pca", make_pipeline(StandardScaler(), PCA(3), LogisticRegression()).fit(X, THREE), False, {}
    yield "pipe_min_max", make_pipeline(MinMaxScaler(), StandardScaler(), LinearSVR()).fit(X, SIGNAL), False, {}
    yield "pipe_kmeans", make_pipeline(StandardScaler(), KMeans(3, random_state=0, n_init=1)).fit(X), False, {}
    yield "pipe_mixture", make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0)).fit(X), False, {}
    for name, y in (("two", TWO), ("three", THREE)):
        yield f"xgb_{name}", XGBClassifier(n_estimators=20, max_depth=5).fit(holes, y), True, {}
        yield f"lgbm_{name}", LGBMClassifier(n_estimators=20, verbose=-1).fit(holes, y), True, {}
    yield "xgb_numbers", XGBRegressor(n_estimators=20, max_depth=5).fit(holes, SIGNAL), True, {}
    yield "xgb_odds", XGBRegressor(n_estimators=20, max_depth=3, objective="binary:logistic").fit(holes, TWO), True, {}
    yield "lgbm_numbers", LGBMRegressor(n_estimators=20, verbose=-1).fit(holes, SIGNAL), True, {}
    yield "lgbm_gamma", LGBMRegressor(n_estimators=10, objective="tweedie", verbose=-1).fit(holes, np.exp(SIGNAL)), True, {}


def of_scikit_learn():
    for name, model, odd_ones, more in estimators():
        # scikit-learn trains in 64 bits; what it scales, sums or exponentiates is compared after several roundings.
        try:
            converted = convert(model, **more)
        except Exception as error:
            raise SystemExit(f"{name} is not converted: {error!r}") from error
        write(name, converted, batches(odd_ones), tolerance=2e-5)
    big = RandomForestClassifier(30, max_depth=10, random_state=0).fit(X, THREE)
    write("huge_batch", convert(big), batches(False, sizes=(50_000,)))
    double = to_onnx(big, initial_types=[("X", DoubleTensorType([None, 6]))], target_opset={"": 18, "ai.onnx.ml": 3})
    write("double_forest", double, batches(True, dtype=np.float64))
    whole = RandomForestClassifier(10, random_state=0).fit((X * 10).astype(int), THREE)
    whole = to_onnx(whole, initial_types=[("X", Int64TensorType([None, 6]))], target_opset={"": 18, "ai.onnx.ml": 3})
    write("whole", whole, [{"X": (rows(count) * 10).astype(np.int64)} for count in SIZES])


def of_columns():
    """Texts, numbers with holes and categories, each prepared in its own way."""
    count = 300
    table = {
        "temperature": RNG.normal(60, 10, size=(count, 1)).astype(np.float32),
        "state": RNG.choice(["idle", "run", "fault"], size=(count, 1)),
        "line": RNG.integers(0, 4, size=(count, 1)).astype(np.int64),
    }
    table["temperature"][::9] = np.nan
    import pandas

    frame = pandas.DataFrame({name: column.ravel() for name, column in table.items()})
    kinds = {"temperature": FloatTensorType, "state": StringTensorType, "line": Int64TensorType}
    types = [(name, kinds[name]([None, 1])) for name in table]
    y = (np.nan_to_num(table["temperature"].ravel(), nan=60) + 20 * (table["state"].ravel() == "fault") > 62).astype(int)
    first = ColumnTransformer([
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["temperature"]),
        ("states", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["state"]),
        ("lines", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["line"]),
    ])
    given = [{name: column[:size] for name, column in table.items()} for size in (1, 8, 200)]
    stranger = {name: column[:3].copy() for name, column in table.items()}
    stranger["state"] = np.array([["idle"], ["never seen"], [""]])
    stranger["line"] = np.array([[0], [99], [-1]], dtype=np.int64)
    for name, last in (("logistic", LogisticRegression()), ("forest", RandomForestClassifier(10, random_state=0)),
                       ("boosting", GradientBoostingClassifier(n_estimators=10, random_state=0))):
        model = make_pipeline(first, last).fit(frame, y)
        onnx_model = to_onnx(model, initial_types=types, target_opset={"": 18, "ai.onnx.ml": 3})
        write(f"columns_{name}", onnx_model, [*given, stranger], tolerance=2e-5)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(frame[["state"]])
    codes = to_onnx(codes, initial_types=[("state", StringTensorType([None, 1]))], target_opset={"": 18, "ai.onnx.ml": 3})
    write("columns_ordinal", codes, [{"state": stranger["state"]}, {"state": table["state"][:50]}])


def small(operator, inputs, outputs, opset=3, **attributes):
    """A model of one node of ai.onnx.ml."""
    node = helper.make_node(operator, [name for name, *_ in inputs], [name for name, *_ in outputs],
                            domain="ai.onnx.ml", **attributes)
    info = lambda ports: [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in ports]
    graph = helper.make_graph([node], "small", info(inputs), info(outputs))
    opsets = [helper.make_opsetid("ai.onnx.ml", opset), helper.make_opsetid("", 18)]
    return helper.make_model(graph, ir_version=10, opset_imports=opsets)


def of_forms():
    """Every mode, transformation and aggregation that the specification knows, also those that no converter writes."""
    F, I, S = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
    x, table = [("X", F, [None, 3])], [{"X": rows(40, 3)}, {"X": odd(3)}, {"X": rows(1, 3)}]
    for grid in table:
        # Values on the thresholds themselves.
        grid["X"][: len(grid["X"]) // 2] = np.round(grid["X"][: len(grid["X"]) // 2])

    def trees(kind, modes, missing, targets, extra):
        """Two trees of depth 2 with leaves for `targets`."""
        lists = {key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids",
                                     "missing_value_tracks_true")}
        weights = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
        for tree in range(2):
            for node in range(7):
                leaf = node > 2
                for key, value in (("treeids", tree), ("nodeids", node), ("featureids", 0 if leaf else (node + tree) % 3),
                                   ("modes", "LEAF" if leaf else modes[(node + tree) % len(modes)]),
                                   ("values", 0.0 if leaf else float(node - 1)),
                                   ("truenodeids", 0 if leaf else 2 * node + 1),
                                   ("falsenodeids", 0 if leaf else 2 * node + 2),
                                   ("missing_value_tracks_true", 0 if leaf else missing)):
                    lists[key].append(value)
                for target in targets if leaf else ():
                    for key, value in (("treeids", tree), ("nodeids", node), ("ids", target),
                                       ("weights", extra.get("sign", 1) * (node * 0.1 - 0.35 * (target == 1) + 0.05 * tree))):
                        weights[key].append(value)
        return {f"nodes_{key}": value for key, value in lists.items()} | {f"{kind}_{key}": v for key, v in weights.items()}

    every = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
    for modes in [[mode] for mode in every] + [every[:4], every]:
        for missing in (0, 1):
            name = f"mode_{'_'.join(mode[7:].lower() for mode in modes)}_{missing}"
            node = small("TreeEnsembleRegressor", x, [("Y", F, [None, 1])], n_targets=1,
                         **trees("target", modes, missing, [0], {}))
            write(name, node, table)
            node = small("TreeEnsembleRegressor", [("X", TensorProto.DOUBLE, [None, 3])], [("Y", F, [None, 1])], n_targets=1,
                         **trees("target", modes, missing, [0], {}))
            write(f"{name}_double", node, [{"X": grid["X"].astype(np.float64)} for grid in table])
    for transform in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"):
        for targets in (1, 3):
            for aggregate in ("SUM", "AVERAGE", "MIN", "MAX"):
                for base in ([], [0.25] * targets):
                    if transform == "SOFTMAX_ZERO" and aggregate != "SUM":
                        continue
                    node = small("TreeEnsembleRegressor", x, [("Y", F, [None, targets])], n_targets=targets,
                                 aggregate_function=aggregate, post_transform=transform,
                                 **({"base_values": base} if base else {}), **trees("target", every[:1], 0, range(targets), {}))
                    write(f"targets_{transform}_{targets}_{aggregate}_{len(base)}".lower(), node, table)
        for classes, known in ((2, [0]), (2, [1]), (2, [0, 1]), (3, [0, 1, 2]), (3, [0, 2])):
            for sign in (1, -1):
                for base in ([], [0.1] * classes):
                    if transform == "PROBIT" and known == [0] and not base:
                        continue  # ONNX Runtime leaves the second score to what was in memory.
                    node = small("TreeEnsembleClassifier", x, [("L", I, [None]), ("Y", F, [None, classes])],
                                 classlabels_int64s=[10, 20, 30][:classes], post_transform=transform,
                                 **({"base_values": base} if base else {}), **trees("class", every[:1], 0, known, {"sign": sign}))
                    name = f"classes_{transform}_{classes}_{''.join(map(str, known))}_{'neg' if sign < 0 else 'pos'}_{len(base)}"
                    write(name.lower(), node, table)
        for targets in (1, 2, 3):
            weights = dict(coefficients=[float(v) for v in RNG.normal(size=3 * targets)],
                           intercepts=[float(v) for v in RNG.normal(size=targets)], post_transform=transform)
            write(f"linear_{transform}_{targets}".lower(),
                  small("LinearRegressor", x, [("Y", F, [None, targets])], targets=targets, **weights), table)
            for labels in {2, max(targets, 2)}:
                if targets > 1 and labels < targets:
                    continue
                if transform == "PROBIT" and (targets, labels) == (1, 2):
                    continue  # As above.
                names = {"classlabels_strings": ["a", "b", "c"][:labels]} if labels % 2 else {"classlabels_ints": [4, 7, 9][:labels]}
                kind = S if labels % 2 else I
                node = small("LinearClassifier", x, [("L", kind, [None]), ("Y", F, [None, max(targets, 2)])], **names, **weights)
                write(f"linear_classes_{transform}_{targets}_{labels}".lower(), node, table)
    numbers = [{"X": rows(5, 3)}, {"X": odd(3)}]
    for norm in ("MAX", "L1", "L2"):
        write(f"normalizer_{norm.lower()}", small("Normalizer", x, [("Y", F, [None, 3])], norm=norm), numbers[:1])
    write("scaler_one", small("Scaler", x, [("Y", F, [None, 3])], offset=[0.5], scale=[2.0]), numbers)
    write("imputer_zero", small("Imputer", x, [("Y", F, [None, 3])], imputed_value_floats=[1.0, 2.0, 3.0],
                                replaced_value_float=0.0), numbers)
    texts = [{"X": np.array([["a", "b"], ["zz", "a"]])}]
    for name, kind, lists in (("strings_int64s", I, {"values_int64s": [7, 8]}), ("strings_floats", F, {"values_floats": [0.5, 1.5]}),
                              ("strings_strings", S, {"values_strings": ["one", "two"], "default_string": "none"})):
        write(f"label_{name}", small("LabelEncoder", [("X", S, [None, 2])], [("Y", kind, [None, 2])],
                                     keys_strings=["a", "b"], **lists), texts)
    floats = [{"X": np.array([[0.5, np.nan, -0.0, 7.0]], dtype=np.float32)}]
    write("label_floats", small("LabelEncoder", [("X", F, [None, 4])], [("Y", S, [None, 4])], keys_floats=[0.5, float("nan"), 0.0],
                                values_strings=["half", "nothing", "zero"]), floats)
    write("categories", small("CategoryMapper", [("X", S, [None, 2])], [("Y", I, [None, 2])], cats_strings=["a", "b"],
                              cats_int64s=[5, 6]), texts)
    write("one_hot_texts", small("OneHotEncoder", [("X", S, [None, 2])], [("Y", F, [None, 2, 3])], cats_strings=["a", "b", "c"]), texts)
    whole = [{"X": np.array([[1, 3], [2, 9]], dtype=np.int64)}]
    write("one_hot_whole", small("OneHotEncoder", [("X", I, [None, 2])], [("Y", F, [None, 2, 3])], cats_int64s=[1, 2, 3]), whole)
    write("vectorizer", small("FeatureVectorizer", [("A", F, [None, 2]), ("B", F, [None, 3])], [("Y", F, [None, 5])],
                              inputdimensions=[2, 3]), [{"A": rows(4, 2), "B": rows(4, 3)}])


def of_nodes():
    """The ONNX project's backend tests."""
    data = pathlib.Path(onnx.__file__).parent / "backend/test/data/node"
    for folder in sorted(glob.glob(str(data / "test_ai_onnx_ml_*"))):
        folder = pathlib.Path(folder)
        model = onnx.load(folder / "model.onnx")

        def read(file):
            proto = TensorProto()
            proto.ParseFromString(pathlib.Path(file).read_bytes())
            array = numpy_helper.to_array(proto)
            return array.astype(str) if array.dtype.kind == "O" else array

        sets = sorted(folder.glob("test_data_set_*"))
        given = [{port.name: read(one / f"input_{at}.pb") for at, port in enumerate(model.graph.input)} for one in sets]
        expected = [{port.name: read(one / f"output_{at}.pb") for at, port in enumerate(model.graph.output)} for one in sets]
        write(f"node_{folder.name[len('test_ai_onnx_ml_'):]}", (folder / "model.onnx").read_bytes(), given, expected)


for part in sys.argv[2].split(",") if len(sys.argv) > 2 else ("scikit_learn", "columns", "forms", "nodes"):
    globals()[f"of_{part}"]()
print(f"{len(list(OUT.iterdir()))} cases by scikit-learn {sklearn.__version__}, skl2onnx {skl2onnx.__version__}, "
      f"ONNX Runtime {ort.__version__}")
