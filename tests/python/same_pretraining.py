"""A pre-training in transformers and adapters must be nsmc's, from its first step to its last.

    python tests/python/same_pretraining.py target/release/nsmc [CASE ...]

Needs torch with `torch.optim.Muon`, transformers and adapters. Each case is trained by
`nsmc pretrain` on the reviews of datasets/sample, a new model over some dozens of steps that reach into
the third epoch, and then by the libraries' own `Trainer` and `AdapterTrainer` from the same weights, without
dropout. What is compared are the losses of every step, in training and on the held-out reviews, and
every weight at the end.

Nothing here is read from nsmc but its first weights and its tokenizer: which reviews are held out,
which meet in a batch and which of their tokens are hidden is computed again, by a generator of its own.

Dropout cannot be compared step by step, for each draws its own masks. So the weights of models/mini are
held still (a learning rate of 1e-30) and one dropout after the other is switched on: the loss on a batch
must be the same but for chance.

PyTorch computes in double precision, so that what is left is nsmc's rounding alone: in float32, an
adapter's weights drift 5e-3 apart within 48 steps, where ReLU's kinks are and gradients are nearly 0.
`torch.optim.Muon` makes matrices orthogonal in bfloat16, where nsmc has float32: its one rounding is left
out, too.
"""

import hashlib
import inspect
import io
import itertools
import json
import logging
import math
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import adapters
import torch
import transformers
from adapters import AdapterTrainer, BertAdapterModel
from torch.nn.functional import cross_entropy
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

NSMC = pathlib.Path(sys.argv[1]).resolve()
CASES = sys.argv[2:] or ["muon", "adamw", "further", "adapter", "dropout"]
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
STILL = 1e-30
MAX_LENGTH = 64

SCRATCH = {
    "source": "scratch", "vocab_size": 1500, "hidden_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "intermediate_size": 160, "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}
ADAPTER = {
    "name": "ko", "config": "pfeiffer", "reduction_factor": 2, "layer_reduction_factors": {},
    "leave_out": [], "non_linearity": "relu", "invertible": True, "dropout": 0.0,
}
# Decay and clipping are strong enough to be seen.
RECIPE = {
    "num_train_steps": 48, "warmup_steps": 6, "decay_steps": 20, "tokens_per_batch": 1000,
    "length_window": 8, "gradient_accumulation_steps": 2, "optimizer": "adamw",
    "learning_rate": 3e-3, "adam_beta1": 0.9, "adam_beta2": 0.98, "adam_epsilon": 1e-6,
    "weight_decay": 0.1, "max_grad_norm": 0.7, "mask_fraction": 0.15,
}
# Of models/mini, which is larger.
SHORT = {"num_train_steps": 16, "warmup_steps": 3, "decay_steps": 6, "tokens_per_batch": 500, "learning_rate": 1e-3}
# A first step without a learning rate: what it saves are the first weights.
FIRST = {"num_train_steps": 1, "warmup_steps": 1, "decay_steps": 0}


class Corpus:
    """The sample's training reviews as a crawl, and which of them are held out."""

    held_out_fraction = 0.05

    def __init__(self, folder):
        self.archive, self.test = folder / "crawl.tar.gz", REPOSITORY / "datasets/sample/ratings_test.txt"
        read = lambda path: [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]
        # Stars that no pre-training looks at.
        rows = [{"review_id": id, "review": text, "rating": "9" if label == "1" else "2"}
                for id, text, label in read(REPOSITORY / "datasets/sample/ratings_train.txt")]
        with tarfile.open(self.archive, "w:gz") as archive:
            content = json.dumps(rows).encode()
            entry = tarfile.TarInfo("nsmc-1/raw/1.json")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        test = read(self.test)
        left_out = {id for id, *_ in test}
        seen = {" ".join(text.split()) for _, text, _ in test} | {""}
        self.reviews, lines = [], ["id\tdocument\trating\n"]
        for row in rows:
            text = " ".join(row["review"].split())
            if row["review_id"] not in left_out and text not in seen:
                seen.add(text)
                self.reviews.append((row["review_id"], text))
                lines.append(f"{row['review_id']}\t{text}\t{row['rating']}\n")
        self.sha256 = hashlib.sha256("".join(lines).encode()).hexdigest()

    def part(self, held_out):
        """Ids and texts of the reviews that are held out, or of the others."""
        place = lambda id: (int.from_bytes(digest("held out", id)[:8]) >> 11) / (1 << 53)
        return [review for review in self.reviews if (place(review[0]) < self.held_out_fraction) == held_out]


class Run:
    """A run of `nsmc pretrain`: where it lies and what it recorded."""

    def __init__(self, folder, name, corpus, model, recipe, adapter=None):
        self.folder, self.recipe = folder / name, recipe
        config = {
            "model": model,
            "corpus": {"archive": str(corpus.archive), "test": str(corpus.test), "sha256": corpus.sha256,
                       "held_out_fraction": corpus.held_out_fraction, "max_length": MAX_LENGTH},
            "training": recipe,
            "evaluation": {"evaluate_every": 1, "save_every": 1000},
        }
        if adapter:
            config["adapter"] = adapter
        lines = ["seed = 7", *(["numerics = 2"] if recipe["weight_decay"] else [])]
        for section, values in config.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        path = folder / f"{name}.toml"
        path.write_text("\n".join(lines) + "\n")
        done = subprocess.run(
            [NSMC, "pretrain", "--config", path, "--out", self.folder, "--device", "cpu",
             "--cache", folder / "cache"],
            cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.metrics = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in self.metrics] == list(range(1, recipe["num_train_steps"] + 1))

    def weights(self):
        """The weights of the last checkpoint, in float32, by their paths in nsmc."""
        data = (self.folder / f"checkpoint/step-{len(self.metrics)}/weights.bpk").read_bytes()
        magic, _, size = struct.unpack_from("<IHI", data)
        assert magic == 0x4255524E
        header, _ = cbor(data, 10)
        start = math.ceil((10 + size) / 256) * 256
        tensors = {}
        for name, tensor in header["tensors"].items():
            assert tensor["dtype"] == "F32", name
            first, last = (start + offset for offset in tensor["data_offsets"])
            values = torch.frombuffer(bytearray(data[first:last]), dtype=torch.float32)
            tensors[name] = values.reshape(tensor["shape"])
        return tensors


def cbor(data, at):
    """What stands there in CBOR, as far as a header needs it, and where the next thing stands."""
    kind, value = data[at] >> 5, data[at] & 31
    at += 1
    if value >= 24:
        width = 1 << value - 24
        value, at = int.from_bytes(data[at : at + width]), at + width
    if kind == 0:
        return value, at
    if kind == 3:
        return data[at : at + value].decode(), at + value
    assert kind in (4, 5), kind
    items = []
    for _ in range(value * (kind - 3)):
        item, at = cbor(data, at)
        items.append(item)
    return (items if kind == 4 else dict(zip(items[::2], items[1::2]))), at


def in_transformers(weights):
    """The weights by their names in transformers; linear layers lie the other way round there."""
    renamed = {}
    for path, tensor in weights.items():
        if path.endswith(".weight") and "_embeddings." not in path:
            tensor = tensor.T
        name = path.replace(".self_attention.", ".self.").replace(".layer_norm.", ".LayerNorm.")
        renamed[name.replace(".gamma", ".weight").replace(".beta", ".bias")] = tensor.contiguous()
    return renamed


def digest(salt, text):
    return hashlib.sha256(f"{salt}\0{text}".encode()).digest()


def chacha8(key):
    """The words of ChaCha with eight rounds, a counter of 64 bits and no nonce."""
    rotated = lambda word, bits: (word << bits | word >> 32 - bits) & 0xFFFFFFFF
    columns = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for counter in itertools.count():
        start = [*struct.unpack("<12I", b"expand 32-byte k" + key), counter & 0xFFFFFFFF, counter >> 32, 0, 0]
        state = start[:]
        for _ in range(4):
            for a, b, c, d in columns + diagonals:
                for x, y, z, bits in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
                    state[x] = state[x] + state[y] & 0xFFFFFFFF
                    state[z] = rotated(state[z] ^ state[x], bits)
        yield from (one + other & 0xFFFFFFFF for one, other in zip(state, start))


class Generator:
    """The random numbers of Rust's `rand` 0.10 from `ChaCha8Rng`, for one review of one epoch."""

    def __init__(self, what, epoch, id=""):
        self.words = chacha8(digest(f"{what} 7 {epoch}", id))

    def below(self, bound):
        high, low = divmod(next(self.words) * bound, 1 << 32)
        if low > (1 << 32) - bound:
            high += low + (next(self.words) * bound >> 32) >> 32
        return high

    def share(self):
        return ((next(self.words) | next(self.words) << 32) >> 11) / (1 << 53)

    def shuffle(self, items):
        chunk, left = 0, 1
        for at in range(len(items)):
            if not left:
                # One draw is enough for several places.
                bound, left = at + 1, 1
                while bound * (at + 1 + left) < 1 << 32:
                    bound *= at + 1 + left
                    left += 1
                chunk = self.below(bound)
            left -= 1
            chunk, other = divmod(chunk, at + 1) if left else (0, chunk)
            items[at], items[other] = items[other], items[at]


class Loader:
    """Batches of masked reviews: whole words, 80 % hidden, 10 % drawn, 10 % as they were."""

    def __init__(self, reviews, tokenizer, run):
        self.ids = [id for id, _ in reviews]
        self.tokens = [tokenizer(text, truncation=True, max_length=MAX_LENGTH)["input_ids"] for _, text in reviews]
        self.recipe, self.mask = run.recipe, tokenizer.mask_token_id
        self.padding = tokenizer.pad_token_id
        self.structure = {tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, self.mask}
        self.ordinary = [id for id in range(len(tokenizer)) if id not in self.structure | {tokenizer.unk_token_id}]
        self.continues = [token.startswith("##") for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
        # A review without a word has nothing to hide.
        whole = [at for at, tokens in enumerate(self.tokens) if set(tokens) - self.structure]
        self.ids, self.tokens = [self.ids[at] for at in whole], [self.tokens[at] for at in whole]

    def cut(self, order, budget):
        parts, size = [], 0
        for review in order:
            length = len(self.tokens[review])
            if parts and size + length <= budget:
                parts[-1].append(review)
                size += length
            else:
                parts.append([review])
                size = length
        return parts

    def epoch(self, epoch):
        """Which reviews are in each batch."""
        key = lambda review: (digest(f"order 7 {epoch}", self.ids[review])[:8], self.ids[review])
        order = sorted(range(len(self.ids)), key=key)
        budget = self.recipe["tokens_per_batch"]
        if self.recipe["length_window"]:
            windows = self.cut(order, budget * self.recipe["length_window"])
            for window in windows:
                window.sort(key=lambda review: len(self.tokens[review]))
            order = [review for at, window in enumerate(windows) for review in (window[::-1] if at % 2 else window)]
        batches = self.cut(order, budget)
        Generator("batches", epoch).shuffle(batches)
        return batches

    def masked(self, review, epoch):
        """Tokens, some of them hidden, and labels: -100 where nothing is to be predicted."""
        random, tokens = Generator("mask", epoch, self.ids[review]), self.tokens[review]
        words = []
        for at, token in enumerate(tokens):
            if token in self.structure:
                continue
            if self.continues[token] and words and words[-1][-1] == at - 1:
                words[-1].append(at)
            else:
                words.append([at])
        left = self.recipe["mask_fraction"] * sum(map(len, words))
        random.shuffle(words)
        chosen = 0
        for word in words:
            if len(word) > left:
                chosen += random.share() * len(word) < left
                break
            left -= len(word)
            chosen += 1
        hidden, labels = tokens[:], [-100] * len(tokens)
        for at in sorted(itertools.chain(*words[: max(chosen, 1)])):
            labels[at] = tokens[at]
            drawn = random.below(10)
            if drawn < 8:
                hidden[at] = self.mask
            elif drawn == 8:
                hidden[at] = self.ordinary[random.below(len(self.ordinary))]
        return hidden, labels

    def batches(self, epoch):
        for reviews in self.epoch(epoch):
            masked = [self.masked(review, epoch) for review in reviews]
            width = max(len(tokens) for tokens, _ in masked)
            padded = lambda values, filler: torch.tensor([row + [filler] * (width - len(row)) for row in values])
            yield {
                "input_ids": padded([tokens for tokens, _ in masked], self.padding),
                "attention_mask": padded([[1] * len(tokens) for tokens, _ in masked], 0),
                "labels": padded([labels for _, labels in masked], -100),
            }

    def endless(self):
        return itertools.chain.from_iterable(map(self.batches, itertools.count()))


def loss_of(outputs, labels, num_items_in_batch):
    """The mean over the masked tokens of all batches of a step."""
    return cross_entropy(outputs.logits.transpose(1, 2), labels, reduction="sum") / num_items_in_batch


def measure(model, batches):
    """Mean loss and accuracy over the masked tokens."""
    loss, right, masked = 0.0, 0, 0
    with torch.no_grad():
        for batch in batches:
            labels = batch["labels"]
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            loss += cross_entropy(logits.transpose(1, 2), labels, reduction="sum").item()
            right += (logits.argmax(-1) == labels).sum().item()
            masked += (labels != -100).sum().item()
    return loss / masked, right / masked


def trainer(kind, held_out):
    class InOrder(kind):
        """A library's trainer that takes batches as they come and keeps the losses."""

        def __init__(self, **options):
            super().__init__(**options)
            self.compute_loss_func = loss_of
            self.losses, self.held_out, self.parts = [], [], []

        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def compute_loss(self, *arguments, **options):
            loss = super().compute_loss(*arguments, **options)
            self.parts.append(loss.item())
            return loss

    class AfterStep(TrainerCallback):
        def on_step_end(self, arguments, state, control, **_):
            at_work.losses.append(sum(at_work.parts))
            at_work.parts.clear()
            at_work.model.eval()
            at_work.held_out.append(measure(at_work.model, held_out))
            at_work.model.train()

    def begin(**options):
        nonlocal at_work
        at_work = InOrder(**options)
        at_work.remove_callback(PrinterCallback)
        at_work.add_callback(AfterStep)
        return at_work

    at_work = None
    return begin


class Together(torch.optim.Optimizer):
    """Several optimisers as the one that a `Trainer` takes."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})

    def step(self, closure=None):
        for optimizer in self.optimizers:
            optimizer.step()

    def load_state_dict(self, state):
        """Of itself, before the first step: the groups stay those of the optimisers."""


def without_rounding(module):
    """Leaves out PyTorch's rounding to bfloat16."""
    source = inspect.getsource(module._zeropower_via_newtonschulz)
    assert source.count(".bfloat16()") == 1, source
    exec(source.replace(".bfloat16()", ""), vars(module))


def muon(model, recipe):
    """Muon for the matrices of the encoder, AdamW for everything else."""
    decays = set(Trainer.get_decay_parameter_names(None, model))
    matrices, groups = [], {True: [], False: []}
    for name, parameter in model.named_parameters():
        if ".encoder." in name and parameter.ndim == 2:
            matrices.append(parameter)
        else:
            groups[name in decays].append(parameter)
    rate, decay = recipe["learning_rate"], recipe["weight_decay"]
    return Together(
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": groups[True], "weight_decay": decay}, {"params": groups[False], "weight_decay": 0.0}],
            lr=rate, betas=(recipe["adam_beta1"], recipe["adam_beta2"]), eps=recipe["adam_epsilon"]))


def trained(kind, model, run, loader, held_out, folder):
    """Trains a model of a library's by the recipe of a run, and gives its trainer."""
    recipe = run.recipe
    steps, parts = recipe["num_train_steps"], recipe["gradient_accumulation_steps"]
    arguments = TrainingArguments(
        output_dir=folder / "trainer", max_steps=steps, per_device_train_batch_size=1,
        gradient_accumulation_steps=parts, optim="adamw_torch", learning_rate=recipe["learning_rate"],
        lr_scheduler_type="warmup_stable_decay", warmup_steps=recipe["warmup_steps"],
        lr_scheduler_kwargs={"num_decay_steps": recipe["decay_steps"], "decay_type": "linear"},
        weight_decay=recipe["weight_decay"], adam_beta1=recipe["adam_beta1"],
        adam_beta2=recipe["adam_beta2"], adam_epsilon=recipe["adam_epsilon"],
        max_grad_norm=recipe["max_grad_norm"], use_cpu=True, report_to="none", save_strategy="no",
        disable_tqdm=True, logging_steps=1, remove_unused_columns=False)
    batches = list(itertools.islice(loader.endless(), steps * parts))
    optimizer = muon(model, recipe) if recipe["optimizer"] == "muon" else None
    at_work = trainer(kind, held_out)(
        model=model, args=arguments, train_dataset=batches, data_collator=lambda one: one[0],
        optimizers=(optimizer, None))
    at_work.train()
    tokens = list(itertools.accumulate(batch["attention_mask"].sum().item() for batch in batches))[parts - 1 :: parts]
    assert tokens == [line["tokens"] for line in run.metrics], "other batches"
    return at_work


def compare(name, run, at_work):
    """Holds the losses of every step against each other."""
    norms = [line["grad_norm"] for line in at_work.state.log_history if "grad_norm" in line]
    assert len(at_work.losses) == len(norms) == len(run.metrics)
    clipped = sum(norm > run.recipe["max_grad_norm"] for norm in norms)
    print(f"{name}: gradients' norms {min(norms):.2f} to {max(norms):.2f}, {clipped} of {len(norms)} clipped")
    losses, accuracies = zip(*at_work.held_out)
    # One token more or less of some hundreds may be right.
    for what, key, theirs, limit in [
        ("loss", "train_loss", at_work.losses, 5e-6),
        ("held-out loss", "held_out_loss", losses, 5e-6),
        ("held-out accuracy", "held_out_accuracy", accuracies, 5e-3),
    ]:
        difference = max(abs(line[key] - other) for line, other in zip(run.metrics, theirs))
        print(f"{name}: {what} {theirs[0]:.4f} to {theirs[-1]:.4f}, largest difference of {len(theirs)} steps "
              f"{difference:.1e}", flush=True)
        assert difference < limit, name


def compare_weights(name, ours, theirs, limit=1e-5):
    """Holds every weight against each other: the largest difference, and the mean of each tensor's."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    differences = {key: (ours[key] - theirs[key]).abs() for key in ours}
    largest = max(differences, key=lambda key: differences[key].max())
    mean = max(difference.mean().item() for difference in differences.values())
    print(f"{name}: {len(ours)} tensors, largest difference {differences[largest].max():.1e}, in {largest}; largest "
          f"mean of a tensor {mean:.1e}", flush=True)
    assert differences[largest].max() <= limit and mean < 1e-6, name


def loaders(corpus, run, tokenizer):
    train, held_out = (Loader(corpus.part(part), tokenizer, run) for part in (False, True))
    # Always with the same masks.
    return train, list(held_out.batches(0))


def state(model):
    """Every parameter of a masked language model, tied ones once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def check_training(name, corpus, folder, model, recipe, base=None):
    """Trains without dropout, here and there."""
    recipe = {**RECIPE, **recipe}
    first = Run(folder, f"{name}-first", corpus, model, {**recipe, **FIRST})
    run = Run(folder, name, corpus, model, recipe)
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    there = BertForMaskedLM(BertConfig.from_pretrained(
        run.folder / "model", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    weights = in_transformers(first.weights())
    missing = there.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys, missing
    tied = ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"]
    assert sorted(missing.missing_keys) == sorted(tied), missing
    there.tie_weights()
    if base:
        before = state(BertForMaskedLM.from_pretrained(base, dtype=torch.float32))
        compare_weights(f"{name}, before the first step", weights, before, 0.0)
    train, held_out = loaders(corpus, run, tokenizer)
    at_work = trained(Trainer, there.double(), run, train, held_out, folder)
    compare(name, run, at_work)
    compare_weights(name, in_transformers(run.weights()), state(there))


def check_adapter(corpus, folder, base):
    """Trains an adapter in a frozen model, here and there."""
    name = "adapter"
    recipe = {**RECIPE, **SHORT}
    model = pretrained(base)
    first = Run(folder, f"{name}-first", corpus, model, {**recipe, **FIRST}, ADAPTER)
    run = Run(folder, name, corpus, model, recipe, ADAPTER)
    there = with_adapter(base, first.folder / "adapter")
    there.train_adapter("ko")
    # Here the head is frozen with all else; adapters leaves it to train.
    left = [key for key, parameter in there.heads.named_parameters() if parameter.requires_grad]
    print(f"{name}: adapters would train of the head, too: {' '.join(left) or 'nothing'}")
    for parameter in there.heads.parameters():
        parameter.requires_grad = False
    tokenizer = AutoTokenizer.from_pretrained(base)
    train, held_out = loaders(corpus, run, tokenizer)
    at_work = trained(AdapterTrainer, there.double(), run, train, held_out, folder)
    compare(name, run, at_work)
    here = with_adapter(base, run.folder / "adapter")
    added = lambda model: {key: tensor for key, tensor in model.state_dict().items() if "adapters." in key}
    assert len(added(there)) > 2 * there.config.num_hidden_layers
    # Where a sum comes to lie on the other side of ReLU's kink, AdamW's step of a small gradient is another.
    compare_weights(name, added(here), added(there), limit=1e-3)
    # What is frozen is what it was, to the last bit.
    before, after = first.weights(), run.weights()
    frozen = [path for path in before if path.startswith("base.")]
    assert frozen and all(torch.equal(before[path], after[path]) for path in frozen)
    assert not any(torch.equal(before[path], after[path]) for path in before if path not in frozen)


def with_adapter(base, adapter):
    """Only AdapterHub's own model class undoes the invertible block before the decoder."""
    bias = BertForMaskedLM.from_pretrained(base, dtype=torch.float32).cls.predictions.bias
    model = BertAdapterModel.from_pretrained(base, dtype=torch.float32)
    # Its conversion of the head leaves the bias behind.
    model.heads["default"][3].bias.data.copy_(bias)
    model.load_adapter(str(adapter), use_safetensors=True, set_active=True)
    return model


def pretrained(folder):
    """What a configuration says of a model in a folder: it is known by what its files hold."""
    files = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    hashes = "".join(hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files)
    return {"source": "pretrained", "name": folder.name, "path": str(folder),
            "revision": hashlib.sha256(hashes.encode()).hexdigest()}


def check_dropout(corpus, folder, base):
    """Holds the weights of a model still and switches each dropout on, here and there."""
    for dropped in ["hidden_dropout_prob", "attention_probs_dropout_prob"]:
        changed = with_config(base, folder / dropped, {dropped: 0.3})
        recipe = {**RECIPE, "learning_rate": STILL, "weight_decay": 0.0, "max_grad_norm": 0.0,
                  "warmup_steps": 0, "num_train_steps": 40, "gradient_accumulation_steps": 1}
        run = Run(folder, f"still-{dropped}", corpus, pretrained(changed), recipe)
        model = BertForMaskedLM.from_pretrained(changed, dtype=torch.float32)
        train, _ = loaders(corpus, run, AutoTokenizer.from_pretrained(base))
        ours = [line["train_loss"] for line in run.metrics]
        batches = list(itertools.islice(train.endless(), len(ours)))
        without = [measure(model.eval(), [batch])[0] for batch in batches]
        theirs = [measure(model.train(), [batch])[0] for batch in batches]
        by_batch = [one - other for one, other in zip(ours, theirs)]
        difference, error = statistics.mean(by_batch), statistics.stdev(by_batch) / len(by_batch) ** 0.5
        print(f"{dropped} 0.3, weights still: mean loss {statistics.mean(ours):.4f} and "
              f"{statistics.mean(theirs):.4f}, standard error of the difference {error:.4f}; without dropout "
              f"{statistics.mean(without):.4f}", flush=True)
        assert abs(difference) < 4 * error, dropped
        # Else it could not be told from none.
        assert statistics.mean(theirs) - statistics.mean(without) > 8 * error, dropped


def with_config(base, folder, changes):
    shutil.copytree(base, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def main():
    transformers.logging.set_verbosity_error()
    # Of a model that is loaded before its adapter.
    logging.getLogger("adapters").setLevel(logging.ERROR)
    without_rounding(torch.optim._muon)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        corpus = Corpus(folder)
        mini = folder / "mini"
        shutil.copytree(REPOSITORY / "models/mini", mini, ignore=shutil.ignore_patterns("ko-*", "*.md"))
        base = with_config(mini, folder / "base", {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
        cases = {
            "muon": lambda: check_training("muon", corpus, folder, SCRATCH, {"optimizer": "muon"}),
            "adamw": lambda: check_training("adamw", corpus, folder, SCRATCH, {}),
            "further": lambda: check_training(
                "further", corpus, folder, pretrained(base), {**SHORT, "optimizer": "muon"}, base),
            "adapter": lambda: check_adapter(corpus, folder, base),
            "dropout": lambda: check_dropout(corpus, folder, base),
        }
        for case in CASES:
            cases[case]()
    print(f"adapters {adapters.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")


main()
