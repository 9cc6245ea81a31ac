"""A training in transformers, peft and adapters must be nsmc's, from its first step to its last.

    python tests/python/same_training.py target/release/nsmc [METHOD ...]

Needs torch, transformers, peft and adapters. Each method is trained by
`cargo xtask train --profile mini` on datasets/sample, for two epochs, and then by the libraries' own
`Trainer` and `AdapterTrainer` from the same weights, on the same batches, without dropout. Their
hyper-parameters are read from the run's configuration.

Dropout cannot be compared step by step, for each draws its own masks. So the trained weights are then
held still (a learning rate of 1e-30) and one dropout after the other is switched on: the mean loss of
an epoch is a matter of where dropout is, and how much of it, and must be the same but for chance.
"""

import hashlib
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import tomllib

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import adapters
import peft
import torch
import transformers
from adapters import AdapterTrainer
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

NSMC = pathlib.Path(sys.argv[1]).resolve()
METHODS = sys.argv[2:] or ["vanilla", "head", "lora", "adapter", "adapterfusion"]
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
STILL = 1e-30
SAMPLE = {
    "data.dataset": "sample",
    "data.train_size": "all",
    "data.test_size": "all",
    "data.validation_fraction": 0,
    "training.selection": "last",
}
DROPOUTS = ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"]


class Run:
    """A run of nsmc: where it lies, its configuration and what it recorded."""

    def __init__(self, folder, name, method, base, settings):
        runs = folder / name
        words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        arguments = [part for word in words for part in ("--set", word)]
        done = subprocess.run(
            ["cargo", "xtask", "train", "--profile", "mini", "--method", method, "--device", "cpu",
             "--runs", runs, "--set", f'model.name="{base}"', *arguments],
            cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "NSMC_BIN": str(NSMC)})
        assert done.returncode == 0, done.stderr
        (self.folder,) = [path for path in runs.iterdir() if (path / "record.json").is_file()]
        self.config = tomllib.loads((self.folder / "config.toml").read_text())
        self.results = json.loads((self.folder / "record.json").read_text())["results"]

    def logits(self):
        rows = [row.split("\t") for row in (self.folder / "predictions.tsv").read_text().splitlines()]
        columns = [at for at, name in enumerate(rows[0]) if name.startswith("logit")]
        return torch.tensor([[float(row[at]) for at in columns] for row in rows[1:]])

    def export(self):
        out = self.folder / "export"
        if not out.exists():
            export = [NSMC, "export", "--run", self.folder, "--out", out]
            subprocess.run(export, check=True, capture_output=True, cwd=REPOSITORY)
        return out


def reviews(config, part, tokenizer):
    """Ids, and what a model is given: quoting is off, a row is a line."""
    data = config["data"]
    lines = (REPOSITORY / data[part]["path"]).read_text(encoding="utf-8").split("\n")
    rows = [line.split("\t") for line in lines[1:] if line]
    encoded = [tokenizer(text, truncation=True, max_length=data["max_length"]) for _, text, _ in rows]
    labels = [data["labels"].index(label) for *_, label in rows]
    return [id for id, *_ in rows], [{**text, "labels": label} for text, label in zip(encoded, labels)]


class Order(torch.utils.data.Sampler):
    """nsmc's order of reviews: that of sha256 over seed, epoch and id."""

    def __init__(self, ids, seed):
        self.ids, self.seed, self.epoch = ids, seed, 0

    def __len__(self):
        return len(self.ids)

    def __iter__(self):
        salt = f"order {self.seed} {self.epoch}\0".encode()
        self.epoch += 1
        key = lambda id: (hashlib.sha256(salt + id.encode()).digest()[:8], id)
        return iter(sorted(range(len(self.ids)), key=lambda at: key(self.ids[at])))


def trainer(kind, order):
    class InOrder(kind):
        """A library's trainer that takes reviews in nsmc's order and keeps the losses."""

        losses = []

        def _get_train_sampler(self, *_):
            return order

        def compute_loss(self, model, inputs, *arguments, **options):
            loss = super().compute_loss(model, inputs, *arguments, **options)
            if model.training:
                self.losses.append((loss.item(), len(inputs["labels"])))
            return loss

        def epoch_losses(self):
            steps = math.ceil(len(order) / self.args.train_batch_size)
            epochs = [self.losses[at : at + steps] for at in range(0, len(self.losses), steps)]
            return [sum(loss * size for loss, size in epoch) / len(order) for epoch in epochs]

    return InOrder


def trained(kind, model, run, stage, data, folder):
    """Trains a model of a library's by the configuration of a run, and gives its trainer."""
    training = {**run.config["training"], **stage}
    ids, examples = data
    assert training["optimizer"] == "adamw_torch"
    arguments = TrainingArguments(
        output_dir=folder / "trainer", num_train_epochs=training["num_train_epochs"],
        per_device_train_batch_size=training["train_batch_size"], optim="adamw_torch",
        learning_rate=training["learning_rate"], warmup_ratio=training["warmup_ratio"],
        lr_scheduler_type="linear", weight_decay=training["weight_decay"],
        adam_beta1=training["adam_beta1"], adam_beta2=training["adam_beta2"],
        adam_epsilon=training["adam_epsilon"], max_grad_norm=training["max_grad_norm"],
        use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no")
    at_work = trainer(kind, Order(ids, run.config["seed"]))(
        model=model, args=arguments, train_dataset=examples, data_collator=COLLATOR)
    at_work.train()
    return at_work


def plain(folder, **options):
    return BertForSequenceClassification.from_pretrained(folder, num_labels=2, **options)


def trains_only(model, parts):
    """Freezes all of a plain model but its parts."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(part in name for part in parts)
    return model


def with_setup(folder, setup):
    model = plain(folder / "base")
    adapters.init(model)
    model.load_adapter_setup(str(folder), set_active=True)
    getattr(model, setup)(model.active_adapters)
    for name, parameter in model.named_parameters():
        if "pooler" in name or "classifier" in name:
            parameter.requires_grad = True
    return model


def in_the_library(method, exported):
    """The trainer and the model of an exported run, as its library loads it."""
    if method == "vanilla":
        return Trainer, plain(exported)
    if method == "head":
        return Trainer, trains_only(plain(exported), ["pooler", "classifier"])
    if method == "lora":
        return Trainer, peft.PeftModel.from_pretrained(plain(exported / "base"), exported, is_trainable=True)
    setup = {"adapter": "train_adapter", "adapterfusion": "train_adapter_fusion"}[method]
    return AdapterTrainer, with_setup(exported, setup)


def check_training(method, settings, base, folder):
    """Trains without dropout, here and there."""
    name = method
    settings = {**SAMPLE, **settings}
    run = Run(folder, name, method, base, settings)
    still = {"training.learning_rate": STILL, "training.num_train_epochs": 1}
    if method == "adapterfusion":
        still["method.adapter_training.learning_rate"] = STILL
        still["method.adapter_training.num_train_epochs"] = 1
    start = Run(folder, f"{name}-start", method, base, {**settings, **still})
    data = reviews(run.config, "train", TOKENIZER)
    kind, model = in_the_library(method, start.export())
    if method == "adapterfusion":
        # Its first stage, from the weights of the adapter by itself.
        alone = {key: value for key, value in {**settings, **still}.items() if "adapter_training" not in key}
        adapter = Run(folder, f"{name}-adapter", "adapter", base, alone)
        _, stage = in_the_library("adapter", adapter.export())
        first_stage = run.config["method"]["adapter_training"]
        first = trained(kind, stage, run, first_stage, data, folder)
        compare_losses(f"{name}, first stage", run.results["adapter_stage"]["epochs"], first)
        # The adapter and the pooler go on, the classifier and the fusion begin anew.
        goes_on = {name: weight for name, weight in stage.state_dict().items()
                   if ".adapters.nsmc." in name or "pooler" in name}
        missing = model.load_state_dict(goes_on, strict=False)
        assert not missing.unexpected_keys, missing
    done = trained(kind, model, run, {}, data, folder)
    compare_losses(name, run.results["epochs"], done)
    _, examples = reviews(run.config, "test", TOKENIZER)
    theirs = torch.tensor(done.predict(examples).predictions)
    ours = run.logits()
    labels = torch.tensor([example["labels"] for example in examples])
    same = (ours.argmax(1) == theirs.argmax(1)).sum().item()
    accuracy = lambda logits: (logits.argmax(1) == labels).float().mean().item()
    print(f"{name}: after {len(done.losses)} steps the same class for {same} of {len(labels)} reviews, "
          f"largest difference {(ours - theirs).abs().max():.1e} of logits up to {theirs.abs().max():.1f}, "
          f"accuracy {accuracy(ours):.4f} and {accuracy(theirs):.4f}", flush=True)
    # What is left is rounding. Biases that decay where they should not have come to 1e-3.
    assert (ours - theirs).abs().max() < 1e-4, name
    return run


# What can be dropped of each method's model, each by itself, and how much of it makes a difference.
DROPPED = {
    "vanilla": {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5, "classifier_dropout": 0.9},
    "head": {},
    "lora": {"lora_dropout": 0.9},
    "adapter": {"dropout": 0.9},
    "adapterfusion": {"dropout_prob": 0.9},
}


def check_dropout(method, run, folder):
    """Holds the trained weights still and switches each dropout on, here and there."""
    for dropped, probability in DROPPED[method].items():
        exported = folder / f"{method}-{dropped}"
        shutil.copytree(run.export(), exported)
        _, model = in_the_library(method, exported)
        base = exported if method == "vanilla" else exported / "base"
        still = {"training.learning_rate": STILL, "training.weight_decay": 0, "training.num_train_epochs": 4}
        if method == "vanilla":
            edit(base / "config.json", {dropped: probability})
        elif method == "lora":
            edit(exported / "adapter_config.json", {dropped: probability})
            still |= {"method.start.from": str(exported), "method.dropout": probability}
        else:
            if method == "adapter":
                edit(exported / "nsmc" / "adapter_config.json", {dropped: probability}, "config")
                still["method.adapter.dropout"] = probability
            else:
                edit(exported / "ko,nsmc" / "adapter_fusion_config.json", {dropped: probability}, "config")
                still |= {"method.keep_head": True, "method.adapter_training.num_train_epochs": 1,
                          "method.adapter_training.learning_rate": STILL}
            for source in ["nsmc", "ko", "ko,nsmc"]:
                if (exported / source).is_dir():
                    key = f'method.sources."{source}"'
                    still |= {f"{key}.from": str(exported / source), f"{key}.invertible_non_linearity": "preset"}
        ours = Run(folder, f"{method}-{dropped}-still", method, base, {**SAMPLE, **still})
        _, examples = reviews(ours.config, "train", TOKENIZER)
        without = loss_held_still(model, examples)
        _, model = in_the_library(method, exported)
        theirs = [loss_held_still(model, examples) for _ in ours.results["epochs"]]
        epochs = [[epoch["train_loss"] for epoch in ours.results["epochs"]], theirs]
        one, other = map(statistics.mean, epochs)
        error = sum(statistics.variance(of) / len(of) for of in epochs) ** 0.5
        print(f"{method}, {dropped} {probability}, weights still: mean loss {one:.4f} and {other:.4f}, standard error of "
              f"the difference {error:.4f}; without dropout {without:.4f}", flush=True)
        assert abs(one - other) < 4 * error, method
        # Else it could not be told from none.
        assert abs(other - without) > 8 * error, method


def loss_held_still(model, examples):
    """The mean loss of an epoch with dropout, in which nothing trains."""
    model.train()
    total = 0.0
    with torch.no_grad():
        for at in range(0, len(examples), 32):
            batch = COLLATOR(examples[at : at + 32])
            total += model(**batch).loss.item() * len(batch["labels"])
    return total / len(examples)


def edit(path, changes, section=None):
    config = json.loads(path.read_text())
    (config[section] if section else config).update(changes)
    path.write_text(json.dumps(config))


def compare_losses(name, epochs, done):
    ours = [epoch["train_loss"] for epoch in epochs]
    theirs = done.epoch_losses()
    assert len(ours) == len(theirs)
    differences = [abs(one - other) for one, other in zip(ours, theirs)]
    print(f"{name}: mean loss of the epochs {' '.join(f'{loss:.4f}' for loss in theirs)}, "
          f"differences {' '.join(f'{difference:.0e}' for difference in differences)}", flush=True)
    assert max(differences) < 1e-6, name


TOKENIZER = COLLATOR = None


def main():
    global TOKENIZER, COLLATOR
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        base = folder / "base"
        shutil.copytree(REPOSITORY / "models/mini", base, ignore=shutil.ignore_patterns("ko-*", "*.md"))
        edit(base / "config.json", dict.fromkeys(DROPOUTS, 0.0))
        TOKENIZER = AutoTokenizer.from_pretrained(base)
        COLLATOR = DataCollatorWithPadding(TOKENIZER)
        for method in METHODS:
            settings = {"training.num_train_epochs": 2}
            if method == "lora":
                settings["method.dropout"] = 0
            run = check_training(method, settings, base, folder)
            check_dropout(method, run, folder)
    print(f"peft {peft.__version__}, adapters {adapters.__version__}, "
          f"transformers {transformers.__version__}, torch {torch.__version__}")


main()
