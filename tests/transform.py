"""What PIL, numpy in torchvision's order of operations, scipy and tokenizers make of some inputs, for tests/suite/transform.rs.

    python transform.py FOLDER

Writes FOLDER/cases.json and the files that it names.
"""
import io
import json
import pathlib
import sys
import wave

import numpy as np
import scipy.signal
import scipy.special
from PIL import Image, ImageOps

FOLDER = pathlib.Path(sys.argv[1])
FOLDER.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(7)
cases = []
DATATYPES = {"float32": "FP32", "uint8": "UINT8", "int64": "INT64", "int32": "INT32", "float64": "FP64"}


def keep(name, data):
    (FOLDER / name).write_bytes(data)
    return name


def tensor(name, array):
    array = np.ascontiguousarray(array)
    return {"datatype": DATATYPES[str(array.dtype)], "shape": list(array.shape), "file": keep(name, array.tobytes())}


def port(name, array, free=True):
    shape = [-1, *array.shape[1:]] if free else list(array.shape)
    return {"name": name, "datatype": DATATYPES[str(array.dtype)], "shape": shape}


def case(name, predict, contents, expected, tolerance=0.0, mean_tolerance=None, shapes=None, files=()):
    cases.append({
        "name": name, "predict": predict, "contents": contents, "tolerance": tolerance,
        "mean_tolerance": tolerance if mean_tolerance is None else mean_tolerance, "files": list(files),
        "inputs": [dict(port(key, array), **({"shape": shapes[key]} if shapes else {})) for key, array in expected.items()],
        "expected": {key: tensor(f"{name}.{key}", array) for key, array in expected.items()},
    })


# Pictures
def picture(width, height, channels=3):
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / (5 + c) + y / (9 - c)) for c in range(channels)]
    noise = rng.integers(-27, 28, (height, width, channels))
    return np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def encoded(image, kind="PNG", **more):
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def image_case(name, data, predict, array, **more):
    case(name, predict, [{"file": keep(name + ".bin", data)}], {"x": array}, **more)


rgb = Image.fromarray(picture(97, 61))
FILTERS = {
    "nearest": Image.Resampling.NEAREST, "box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS,
}
for filter_name, number in FILTERS.items():
    for width, height in [(32, 24), (150, 100), (97, 7), (40, 61), (1, 1)]:
        predict = f"""[[input]]
kind = "image"
layout = "NHWC"
steps = [{{ step = "resize", width = {width}, height = {height}, filter = "{filter_name}" }}]"""
        wanted = np.asarray(rgb.resize((width, height), number))[None]
        image_case(f"resize-{filter_name}-{width}x{height}", encoded(rgb), predict, wanted)

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def imagenet(image, shorter, side):
    """torchvision's Resize, CenterCrop, ToTensor and Normalize, in its order and in 32 bits."""
    width, height = image.size
    size = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    image = image.resize(size, Image.Resampling.BILINEAR)
    width, height = image.size
    left, top = int(round((width - side) / 2.0)), int(round((height - side) / 2.0))
    x = np.asarray(image.crop((left, top, left + side, top + side))).astype(np.float32) / np.float32(255)
    return ((x - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)


IMAGENET = """[[input]]
kind = "image"
steps = [
    { step = "resize", shorter = %d },
    { step = "crop", width = %d, height = %d },
    { step = "normalise", divide = 255, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] },
]"""
for width, height, shorter, side in [(97, 61, 40, 33), (61, 97, 40, 32), (50, 50, 41, 32), (33, 90, 64, 64)]:
    image = Image.fromarray(picture(width, height))
    image_case(f"imagenet-{width}x{height}", encoded(image), IMAGENET % (shorter, side, side), imagenet(image, shorter, side))

AS_IS = '[[input]]\nkind = "image"\nlayout = "NHWC"\n'
kinds = {
    "rgb": rgb,
    "grey": Image.fromarray(picture(20, 15)[:, :, 0]),
    "rgba": Image.fromarray(picture(20, 15, 4)),
    "grey-alpha": Image.fromarray(picture(20, 15, 2)),
    "palette": Image.fromarray(picture(20, 15)).quantize(17),
    "one-bit": Image.fromarray(picture(20, 15)[:, :, 0] > 128),
}
for name, image in kinds.items():
    wanted = np.asarray(image.convert("RGB"))
    image_case(f"png-{name}", encoded(image), AS_IS, wanted[None], shapes={"x": [-1, -1, -1, 3]})
luma = np.asarray(rgb.convert("L"))[None, None]
image_case("luma", encoded(rgb), '[[input]]\nkind = "image"\ncolour = "grey"', luma, shapes={"x": [-1, 1, -1, -1]})
bgr = np.asarray(rgb)[:, :, ::-1].transpose(2, 0, 1)[None]
image_case("bgr", encoded(rgb), '[[input]]\nkind = "image"\ncolour = "bgr"', bgr, shapes={"x": [-1, 3, -1, -1]})
floats = np.asarray(rgb).astype(np.float32)[None]
image_case("floats", encoded(rgb), AS_IS, floats, shapes={"x": [-1, -1, -1, 3]})
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ["PNG", "JPEG"]:
        data = encoded(rgb, kind, exif=exif, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
        wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))[None]
        # Decoders of JPEG may round their cosine transforms apart.
        rounding = {"tolerance": 3, "mean_tolerance": 0.05} if kind == "JPEG" else {}
        image_case(f"exif-{orientation}-{kind.lower()}", data, AS_IS, wanted, shapes={"x": [-1, -1, -1, 3]}, **rounding)
smooth = Image.fromarray(picture(300, 200)).resize((150, 100), Image.Resampling.BOX)
for name, more in {"progressive": {"progressive": True, "subsampling": 0}, "halved-colours": {"subsampling": 2}, "grey": {}}.items():
    image = smooth.convert("L") if name == "grey" else smooth
    data = encoded(image, "JPEG", quality=90, **more)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[None]
    image_case(f"jpeg-{name}", data, AS_IS, wanted, shapes={"x": [-1, -1, -1, 3]},
               # libjpeg smooths colours that are stored at half the size in its own way.
               **({"tolerance": 12, "mean_tolerance": 0.6} if name == "halved-colours" else {"tolerance": 3, "mean_tolerance": 0.05}))


# Sounds
def wav(rate, samples, channels=1):
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


for rate, wanted_rate in [(8000, 16000), (44100, 16000), (48000, 16000), (22050, 16000), (16000, 16000), (11025, 8000)]:
    sound = (8000 * np.sin(np.arange(2001) ** 1.4 / 30) + rng.integers(-2000, 2000, 2001)).astype(np.int16)
    up, down = wanted_rate // np.gcd(rate, wanted_rate), rate // np.gcd(rate, wanted_rate)
    resampled = scipy.signal.resample_poly(sound / 32768.0, up, down).astype(np.float32)[None]
    case(f"resample-{rate}-{wanted_rate}", f'[[input]]\nkind = "audio"\nrate = {wanted_rate}',
         [{"file": keep(f"{rate}-{wanted_rate}.wav", wav(rate, sound))}], {"x": resampled},
         tolerance=2e-6, shapes={"x": [-1, -1]})
pair = rng.integers(-32768, 32767, (500, 2)).astype(np.int16)
mono = (pair.astype(np.float32) / np.float32(32768)).mean(1, dtype=np.float32)
fixed = np.concatenate([mono, np.zeros(140, np.float32)])[None]
case("stereo-filled", '[[input]]\nkind = "audio"\nrate = 8000\nsamples = 640',
     [{"file": keep("stereo.wav", wav(8000, pair, 2))}], {"x": fixed}, tolerance=1e-7)

# Texts
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

CORPUS = [
    "The bearing of the conveyor motor runs hot.", "Replace the filter, then restart pump number 7.",
    "Der Lagerschaden an der Förderpumpe wurde gestern gemeldet.", "Vibration above 4.5 mm/s on axis B2!",
    "naïve café résumé – déjà vu", "温度が高すぎる", "the the the pump pump runs runs",
] * 4
TEXTS = [
    "The pump runs hot.", "", " ", "Förderpumpe B2: 4.5 mm/s!!", "unknownwordthatneverwas zzz", "温度 42°C", "a\tb\nc\u00a0d",
    "🔥 pump", "the pump " * 40, "e\u0301 \u0000 \u200b",
]


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def bytepairs():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=["<pad>", "<unk>", "</s>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return tokenizer


def tokens(name, tokenizer, texts, length, fixed, pad, more="", pairs=False, left=False):
    file = keep(name + ".tokenizer.json", tokenizer.to_str().encode())
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=pad, length=length if fixed else None, direction="left" if left else "right")
    encoded = tokenizer.encode_batch([(text, texts[-1 - at]) for at, text in enumerate(texts)] if pairs else texts)
    arrays = {
        "input_ids": np.array([e.ids for e in encoded], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
        "token_type_ids": np.array([e.type_ids for e in encoded], np.int64),
    }
    if left:
        tokenizer.no_truncation()
        (FOLDER / file).write_text(tokenizer.to_str())
    predict = f'[[input]]\nkind = "text"\ntokenizer = "{file}"\nlength_max = {length}\npad_to_max = {str(fixed).lower()}\n{more}'
    contents = [{"text": text, **({"pair": texts[-1 - at]} if pairs else {})} for at, text in enumerate(texts)]
    case(name, predict, contents, arrays, shapes={key: [-1, -1] for key in arrays}, files=[file])


tokens("wordpiece", wordpiece(), TEXTS, 24, False, 0)
tokens("wordpiece-fixed", wordpiece(), TEXTS, 32, True, 0)
tokens("wordpiece-pairs", wordpiece(), TEXTS, 20, False, 0, pairs=True)
tokens("bytepairs", bytepairs(), [text for text in TEXTS if text], 48, False, 0)
tokens("bytepairs-left", bytepairs(), [text for text in TEXTS if text], 16, False, 0, left=True)
tokens("unigram", unigram(), TEXTS, 30, False, 0)

# Outputs
posts = []


def post(name, output, arrays, expected, picture=None, labels=(), tolerance=1e-6):
    posts.append({
        "name": name, "output": output, "labels": list(labels), "picture": picture, "expected": expected, "tolerance": tolerance,
        "outputs": [dict(port(key, array), **{"tensor": tensor(f"{name}.{key}", array)}) for key, array in arrays.items()],
    })


logits = rng.normal(0, 3, (1, 12)).astype(np.float32)
shares = scipy.special.softmax(logits.astype(np.float64), axis=1)[0]
order = np.argsort(-shares, kind="stable")[:5]
post("softmax", 'steps = ["softmax", { step = "top_k", k = 5 }]', {"y": logits},
     {"classes": [{"index": int(i), "score": float(shares[i])} for i in order]})
odds = scipy.special.expit(logits.astype(np.float64))[0]
post("sigmoid", 'steps = ["sigmoid"]', {"y": logits}, {"values": odds.tolist(), "shape": [12]})


def suppressed(boxes, scores, classes, overlap, most):
    """Greedy, class by class, on matrices: the definition behind torchvision.ops.batched_nms."""
    kept = []
    order = np.argsort(-scores, kind="stable")
    while len(order) and len(kept) < most:
        best, order = order[0], order[1:]
        kept.append(best)
        if not len(order):
            break
        low, high = np.maximum(boxes[best, :2], boxes[order, :2]), np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        area = lambda b: np.prod(b[..., 2:] - b[..., :2], axis=-1)
        union = area(boxes[best]) + area(boxes[order]) - shared
        order = order[~((shared / union > overlap) & (classes[order] == classes[best]))]
    return kept


for seed, (width, height) in enumerate([(640, 480), (333, 1000), (97, 61)]):
    count, side = 400, 320
    centres = rng.uniform(0, side, (12, 2))[rng.integers(0, 12, count)] + rng.normal(0, 4, (count, 2))
    sizes = rng.uniform(20, 60, (count, 2))
    scores = (rng.uniform(0, 1, (count, 5)) ** 3).astype(np.float32)
    rows = np.concatenate([centres, sizes], 1).astype(np.float32)
    corners = np.concatenate([rows[:, :2] - rows[:, 2:] / 2, rows[:, :2] + rows[:, 2:] / 2], 1)
    # scale_boxes of Ultralytics: the ratio and the padding of its LetterBox.
    ratio = min(side / width, side / height)
    inner = round(width * ratio), round(height * ratio)
    left, top = (side - inner[0]) // 2, (side - inner[1]) // 2

    def sent(box):
        x = np.clip((box[[0, 2]] - left) * width / inner[0], 0, width)
        y = np.clip((box[[1, 3]] - top) * height / inner[1], 0, height)
        return [float(x[0]), float(y[0]), float(x[1]), float(y[1])]

    for style in ["yolov8", "yolov5"]:
        objectness = rng.uniform(0.3, 1, count).astype(np.float32)
        best = scores.argmax(1)
        value = scores.max(1) * (objectness if style == "yolov5" else np.float32(1))
        chosen = np.flatnonzero(value >= np.float32(0.3))
        kept = chosen[suppressed(corners[chosen], value[chosen], best[chosen], 0.5, 50)]
        given = np.concatenate([rows, scores], 1).T if style == "yolov8" else np.concatenate([rows, objectness[:, None], scores], 1)
        post(f"{style}-{seed}", f'steps = [{{ step = "boxes", style = "{style}", at_least = 0.3, overlap_max = 0.5, boxes_max = 50 }}]',
             {"y": given[None].astype(np.float32)},
             {"width": width, "height": height,
              "boxes": [{"index": int(best[i]), "score": float(value[i]), "bbox": sent(corners[i])} for i in kept]},
             picture={"file": keep(f"{width}x{height}.png", encoded(Image.new("RGB", (width, height)))), "side": side}, tolerance=2e-3)

(FOLDER / "cases.json").write_text(json.dumps({"cases": cases, "posts": posts}))
