"""What nsmc exports must load in peft and adapters and give nsmc's logits, and the other way round.

    python tests/python/libraries_round_trip.py target/release/nsmc

Needs torch, transformers, peft and adapters. Trains small runs of LoRA, adapters and AdapterFusion on made-up reviews,
exports them, loads them in the libraries; then moves every added weight by random noise there, saves
it with the libraries, and starts runs from that which take no step of note. All logits to 1e-5.
"""

import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import adapters
import peft
import torch
import transformers
from adapters import BertAdapterModel
from adapters.composition import Fuse
from transformers import AutoTokenizer, BertForSequenceClassification

NSMC = pathlib.Path(sys.argv[1]).resolve()
TEXTS = ["", "ㅋㅋ", "정말 최고 영화", "최악 ... 돈 아깝다 ㅠㅠ", '"인용" 최고 최악 음악', "배우 결말 처음 " * 9]
WORDS = ["영화", "배우", "음악", "감독", "결말", "처음", "그냥", "정말", '"인용"', "ㅋㅋ"]

CONFIG = """
numerics = 2
seed = 7
{model}
[data]
dataset = "toy"
id_column = "id"
text_column = "document"
label_column = "label"
labels = ["0", "1"]
label_names = ["negative", "positive"]
delimiter = "\\t"
quoting = false
train_size = "all"
test_size = "all"
validation_fraction = 0.0
max_length = 24
[data.train]
path = "{data}"
sha256 = "{sha256}"
class_counts = []
[data.test]
path = "{data}"
sha256 = "{sha256}"
class_counts = []
{method}
[training]
num_train_epochs = 1
train_batch_size = 16
learning_rate = {learning_rate}
warmup_ratio = 0.0
optimizer = "adamw_torch"
adam_beta1 = 0.9
adam_beta2 = 0.999
adam_epsilon = 1e-8
weight_decay = 0.01
max_grad_norm = 1.0
selection = "last"
save_steps = 0
[evaluation]
eval_batch_size = 16
metric_batch_size = 32
"""

PRETRAINED = """[model]
source = "pretrained"
name = "base"
revision = "{revision}"
path = "{path}\""""

LORA = """[method]
name = "lora"
rank = {rank}
alpha = 6.0
dropout = 0.1
target_modules = {targets}
exclude_modules = []
layers_to_transform = []
rank_pattern = {patterns}
alpha_pattern = {{}}
use_rslora = {rslora}
use_dora = {dora}
bias = "{bias}"
trains = {trains}
{start}"""

ADAPTER = """[method]
name = "{name}"
setup = "{setup}"
head = "{head}"
trains = ["head"]
{fusion}
[method.adapter]
name = "nsmc"
config = "{config}"
reduction_factor = 4
layer_reduction_factors = {{ 1 = 2 }}
leave_out = []
non_linearity = "gelu"
invertible = {invertible}
dropout = 0.0
{sources}"""

FUSION = """adapter_setup = "nsmc"
fusion = "dynamic"
regularization = true
unfreeze_adapters = false
keep_head = false
[method.adapter_training]
num_train_epochs = 1
learning_rate = {learning_rate}"""

SOURCE = """[{key}]
from = "given"
invertible_non_linearity = "preset"
path = "{path}"
sha256 = "{sha256}"
"""

# What is read of a folder: the first of the weights that is there, and what lies beside them.
MODEL = (["model.safetensors", "pytorch_model.bin"],
         ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"])
PEFT = (["adapter_model.safetensors", "adapter_model.bin"], ["adapter_config.json"])
ADAPTER_FILES = (["adapter.safetensors", "pytorch_adapter.bin"], ["adapter_config.json"])
HEAD = (["model_head.safetensors", "pytorch_model_head.bin"], ["head_config.json"])
FUSION_FILES = (["model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"],
                ["adapter_fusion_config.json"])


def folder_hash(folder, kind):
    """The hash of a folder in a configuration: that of its files' hashes, one after the other."""
    weights, beside = kind
    there = lambda names: [name for name in names if (pathlib.Path(folder) / name).is_file()]
    names = there(weights)[:1] + there(beside)
    hashes = [hashlib.sha256((pathlib.Path(folder) / name).read_bytes()).hexdigest() for name in names]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def source(key, folder, kind):
    return SOURCE.format(key=key, path=folder, sha256=folder_hash(folder, kind))


class World:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        rng = random.Random(1)
        rows = ["id\tdocument\tlabel"]
        for row in range(200):
            label = row % 2
            words = rng.choices(WORDS, k=1 + row % 8) + [["최악", "최고"][label]]
            rng.shuffle(words)
            rows.append(f"{row}\t{' '.join(words)}\t{label}")
        # The fixtures' base: its weights are large, so that every mistake shows.
        fixtures = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
        self.base = self.folder / "base"
        self.base.mkdir()
        for file in [*(fixtures / "base").iterdir(), *(fixtures / "tokenizer").glob("*o*.*")]:
            if file.name != "cases.json":
                (self.base / file.name).write_bytes(file.read_bytes())
        self.data = self.folder / "data.txt"
        self.data.write_text("\n".join(rows) + "\n")

    def nsmc(self, *arguments):
        done = subprocess.run(
            [NSMC, *map(str, arguments)], capture_output=True, text=True, cwd=self.folder,
            env={**os.environ, "NSMC_CACHE": str(self.folder / "cache"), "XDG_CACHE_HOME": str(self.folder)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def train(self, run, method, learning_rate):
        config = self.folder / f"{run}.toml"
        sha256 = hashlib.sha256(self.data.read_bytes()).hexdigest()
        config.write_text(CONFIG.format(
            model=PRETRAINED.format(path=self.base, revision=folder_hash(self.base, MODEL)), method=method, data=self.data, sha256=sha256, learning_rate=learning_rate))
        self.nsmc("train", "--config", config, "--out", run, "--device", "cpu")

    def logits(self, run):
        arguments = [part for text in TEXTS for part in ("--text", text)]
        lines = self.nsmc("predict", "--run", run, "--device", "cpu", *arguments).splitlines()
        return torch.tensor([list(json.loads(line)["logits"].values()) for line in lines])


def library_logits(model, base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    batch = tokenizer(TEXTS, truncation=True, max_length=24, padding=True, return_tensors="pt")
    model.eval()
    with torch.no_grad():
        return model(**batch).logits


WORST = 0.0


def compare(what, ours, theirs):
    global WORST
    difference = (ours - theirs).abs().max().item()
    WORST = max(WORST, difference)
    print(f"{what}: largest difference {difference:.2e} of logits up to {theirs.abs().max():.2f}")
    assert difference < 1e-5, what


def shake(model, names):
    """Moves the weights that are named by noise, so that no B is 0 and no V the identity."""
    torch.manual_seed(3)
    moved = 0
    for name, parameter in model.named_parameters():
        if any(part in name for part in names):
            parameter.data += 0.1 * torch.randn_like(parameter)
            moved += 1
    assert moved > 0


def check_lora(world, name, **options):
    settings = {"rank": 4, "targets": '["query", "value"]', "patterns": "{}", "rslora": "false",
                "dora": "false", "bias": "none", "trains": '["head"]', "start": "", **options}
    world.train(name, LORA.format(**settings), 1e-2)
    world.nsmc("export", "--run", name, "--format", "peft", "--out", f"{name}.peft")
    world.nsmc("export", "--run", name, "--format", "merged", "--out", f"{name}.merged")
    folder = world.folder / f"{name}.peft"
    # Where weights of the base trained, the base is beside; PEFT's files hold them, too.
    base = BertForSequenceClassification.from_pretrained(world.base)
    model = peft.PeftModel.from_pretrained(base, folder)
    ours = world.logits(name)
    compare(f"{name}, into peft", ours, library_logits(model, world.base))
    merged = BertForSequenceClassification.from_pretrained(world.folder / f"{name}.merged")
    compare(f"{name}, merged, into transformers", ours, library_logits(merged, world.base))

    shake(model, ["lora_", "modules_to_save"])
    model.save_pretrained(world.folder / f"{name}.back")
    start = source("method.start", world.folder / f"{name}.back", PEFT)
    settings["start"] = start
    world.train(f"{name}.again", LORA.format(**settings), 1e-30)
    compare(f"{name}, from peft", world.logits(f"{name}.again"), library_logits(model, world.base))


def check_adapters(world, name, head, config, invertible):
    options = {"head": head, "config": config, "invertible": invertible}
    world.train(f"{name}.ko", ADAPTER.format(
        name="adapter", setup="nsmc", fusion="", sources="", **options), 1e-2)
    world.nsmc("export", "--run", f"{name}.ko", "--format", "adapterhub", "--out", f"{name}.ko.hub")
    ko = world.folder / f"{name}.ko.hub"
    base = world.base
    plain = BertAdapterModel if head == "flex" else BertForSequenceClassification

    def load(folder, **arguments):
        model = plain.from_pretrained(base)
        if head != "flex":
            adapters.init(model)
        model.load_adapter_setup(str(folder), set_active=True, **arguments)
        return model

    for safetensors in (False, True):
        model = load(ko, use_safetensors=safetensors)
        compare(f"{name}, one adapter, into adapters", world.logits(f"{name}.ko"), library_logits(model, base))

    sources = source("method.sources.ko", ko / "nsmc", ADAPTER_FILES)
    fused = ADAPTER.format(name="adapterfusion", setup="Fuse(ko, nsmc)",
                           fusion=FUSION.format(learning_rate=1e-2), sources=sources, **options)
    world.train(name, fused, 1e-2)
    world.nsmc("export", "--run", name, "--format", "adapterhub", "--out", f"{name}.hub")
    model = load(world.folder / f"{name}.hub")
    compare(f"{name}, fusion, into adapters", world.logits(name), library_logits(model, base))

    shake(model, [".adapters.", "adapter_fusion_layer", "invertible_adapters", "classifier", "heads"])
    back = world.folder / f"{name}.back"
    back.mkdir()
    model.save_adapter(str(back / "ko"), "ko", with_head=False)
    # The library saves AdapterHub's head with the adapter of its name, any other with each.
    model.save_adapter(str(back / "nsmc"), "nsmc", with_head=True)
    model.save_adapter_fusion(str(back / "fusion"), Fuse("ko", "nsmc"))
    sources = "".join(
        source(f"method.sources.{key}", back / path, kind)
        for key, path, kind in [("ko", "ko", ADAPTER_FILES), ("nsmc", "nsmc", ADAPTER_FILES),
                                ('"ko,nsmc"', "fusion", FUSION_FILES), ("head", "nsmc", HEAD)])
    fused = ADAPTER.format(name="adapterfusion", setup="Fuse(ko, nsmc)",
                           fusion=FUSION.format(learning_rate=1e-30), sources=sources, **options)
    world.train(f"{name}.again", fused, 1e-30)
    compare(f"{name}, fusion, from adapters", world.logits(f"{name}.again"), library_logits(model, base))


def main():
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        check_lora(world, "lora")
        check_lora(world, "lora-all-linear", targets='"all-linear"', rank=3, rslora="true", bias="all",
                   patterns='{ "layer.0.attention.self.query" = 5 }', trains='["head", "layer_norm"]')
        check_lora(world, "lora-embeddings", targets='["word_embeddings", "output.dense"]',
                   bias="lora_only", trains='["head", "pooler"]')
        check_lora(world, "lora-dora", targets='".*(key|intermediate.dense)"', dora="true")
        check_adapters(world, "pfeiffer", "classifier", "pfeiffer", "true")
        check_adapters(world, "houlsby", "flex", "houlsby", "false")
    print(f"peft {peft.__version__}, adapters {adapters.__version__}, "
          f"transformers {transformers.__version__}: largest difference {WORST:.2e}")


main()
