"""Writes tests/fixtures/options: numbers for the options of adapters and peft that no preset has.

    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python tests/python/option_fixtures.py

Made with torch 2.11, transformers 4.57.6, adapters 1.3.0 and peft 0.21.2. The base model, the batches and the experiment
(logits, gradients, three steps of AdamW) are those of tests/fixtures/make_fixtures.py, which is imported from there, and so
are the layout of a case and the meaning of its keys. Every added weight is drawn from a generator seeded by its name and is
far from 0, so that the files are the same each time and a part in the wrong place shows.

A case has several options at once. For each the library computes the logits again with that one alone changed, and they must
move by more than NOTICED, a hundred times what the tests allow: an implementation that passes over the option fails. How far
they moved is in the case's meta.json and in README.md. (The two GELUs are 5e-4 apart at most, so that ten times is asked of
them.)
"""

import json
import pathlib
import shutil
import sys

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
sys.dont_write_bytecode = True
sys.path.insert(0, str(FIXTURES))

import make_fixtures as made

import adapters
import torch
from adapters import AdapterFusionConfig, BertAdapterModel, BnConfig
from adapters.composition import Fuse, Stack
from peft import LoraConfig, TaskType, get_peft_model
from peft import PeftModel as LoadedPeftModel
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

torch.set_num_threads(1)

OUT = FIXTURES / "options"
made.OUT = str(OUT)
NOTICED, NOTICED_OF_GELU = 1e-3, 1e-4
MOVED = {}  # case -> option -> how far the logits move without it


# ---------------------------------------------------------------- what both libraries' cases share
def all_logits(model):
    model.eval()
    with torch.no_grad():
        return torch.cat([model(**batch).logits for batch in made.BATCHES])


def notices(case, build, changes):
    """Each of `changes`, by name, must move the logits of what `build` makes."""
    expected, MOVED[case] = all_logits(build()), {}
    for option, change in changes.items():
        distance = (all_logits(build(**change)) - expected).abs().max().item()
        least = NOTICED_OF_GELU if "gelu" in option else NOTICED
        assert distance > least, f"{case}: {option} moves the logits by {distance:.1e} only"
        MOVED[case][option] = distance


def merged(spec, change):
    """`spec` with some of its keys, perhaps within one another, changed."""
    nested = {key: merged(spec[key], value) for key, value in change.items()
              if isinstance(value, dict) and isinstance(spec.get(key), dict)}
    return {**spec, **change, **nested}


def run(case, model, description, rename, setup=None):
    """The experiment. What trains and is nowhere used has no gradient, so that AdamW passes it over; where the experiment has
    zeros for it, the files name it and have no numbers."""
    model(**made.BATCHES[0]).loss.backward()
    unused = [rename(name) for name, parameter in model.named_parameters()
              if parameter.requires_grad and parameter.grad is None]
    model.zero_grad(set_to_none=True)
    meta = dict(moved={option: float(f"{distance:.2g}") for option, distance in MOVED[case].items()}, without_gradient=unused)
    if setup is not None:
        meta["active_setup"] = setup
    made.run_case(case, model, description, rename=rename, extra_meta=meta)
    path = OUT / case / "expected.safetensors"
    kept = {key: tensor for key, tensor in load_file(path).items() if key.split(".", 1)[-1] not in unused}
    save_file(kept, path)


# ---------------------------------------------------------------- AdapterHub
PFEIFFER = dict(mh_adapter=False, output_adapter=True, reduction_factor=16, non_linearity="relu", original_ln_before=True)
STATIC = dict(key=True, query=True, value=False, query_before_ln=False, regularization=False, residual_before=False,
              temperature=False, value_before_softmax=True, value_initialized=False, dropout_prob=None)
DYNAMIC = dict(STATIC, value=True, regularization=True, value_initialized=True)


def written(setup):
    """A setup as it is written in meta.json."""
    if isinstance(setup, str):
        return setup
    return f"{type(setup).__name__}({', '.join(map(written, setup))})"


def fuses(setup):
    """The fusions of a setup, each as the names of its adapters."""
    if isinstance(setup, str):
        return []
    own = [setup.name.split(",")] if isinstance(setup, Fuse) else []
    return own + [names for child in setup for names in fuses(child)]


def adapted(configs, setup, fusion=None, head=None, epsilon=None):
    model = made.base_model(BertAdapterModel if head else BertForSequenceClassification)
    if not head:
        adapters.init(model)
    for name, config in configs.items():
        model.add_adapter(name, config=config if isinstance(config, str) else BnConfig(**config))
    for names in fuses(setup):
        model.add_adapter_fusion(names, AdapterFusionConfig(**fusion))
    if head:
        model.add_classification_head(num_labels=2, **head)
    made.fill(model, only=lambda name: "adapter" in name or name.startswith("heads."))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".adapter_norm_" in name and name.endswith("weight"):
                parameter.copy_(1 + made.normal(name, parameter.shape, 0.3))
    for name, module in model.named_modules():
        if epsilon and ".adapter_norm_" in name:
            module.eps = epsilon
    model.set_active_adapters(setup)
    return model.eval()


def adapterhub_name(name):
    """The classifier of a head on the pooler is the base's here; a LayerNorm has the second of its two names in the files."""
    return name.replace("heads.nsmc.1.", "classifier.").replace(".adapter_norm_before.", ".adapter_down.0.")


def adapterhub(case, description, changes, configs, setup, fusion=None, head=None, unfreeze=False, after_saving=None):
    spec = dict(configs=configs, setup=setup, fusion=fusion, head=head)

    def build(**change):
        return adapted(**merged(spec, change))

    notices(case, build, changes)
    model = build()
    if fuses(setup):
        model.train_adapter_fusion(setup, unfreeze_adapters=unfreeze)
        # Without query, key and value the library makes a layer that it does not use.
        for name, parameter in model.named_parameters():
            if name.endswith(".dense.weight") or name.endswith(".dense.bias"):
                parameter.requires_grad_(False)
    else:
        model.train_adapter(setup)
    if head:
        model.active_head = head["head_name"]
    model.eval()
    folder = OUT / case
    folder.mkdir()
    for name, config in configs.items():
        # The library cannot write a LayerNorm under two names as safetensors.
        safetensors = not (isinstance(config, dict) and config.get("ln_before"))
        model.save_adapter(str(folder / name), name, with_head=head is not None, use_safetensors=safetensors)
    for names in fuses(setup):
        model.save_adapter_fusion(str(folder / ",".join(names)), ",".join(names), use_safetensors=True)
    if after_saving:
        after_saving(folder)
    check_files(case, model, configs, setup, head)
    run(case, model, description, adapterhub_name, written(setup))


def check_files(case, model, configs, setup, head):
    """What the library reads from the files must be what it wrote."""
    again = made.base_model(BertAdapterModel if head else BertForSequenceClassification)
    if not head:
        adapters.init(again)
    for name in configs:
        safetensors = (OUT / case / name / "adapter.safetensors").exists()
        again.load_adapter(str(OUT / case / name), with_head=head is not None, use_safetensors=safetensors)
    for names in fuses(setup):
        again.load_adapter_fusion(str(OUT / case / ",".join(names)), use_safetensors=True)
    again.set_active_adapters(setup)
    if head:
        again.active_head = head["head_name"]
    assert torch.equal(all_logits(again), all_logits(model)), case


def edit_config(name, change):
    """Rewrites the configuration of an adapter that was saved."""

    def edit(folder):
        path = folder / name / "adapter_config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config, indent=2, sort_keys=True))

    return edit


def unversioned(config):
    del config["version"]
    config["config"]["non_linearity"] = "gelu_orig"


def by_name(config):
    del config["version"]
    config["config"] = "houlsby+inv"


def of(name, **options):
    return {"configs": {name: options}}


def adapterhub_cases():
    a = dict(PFEIFFER, reduction_factor=4, non_linearity="gelu", ln_before=True, ln_after=True, residual_before_ln=False,
             adapter_residual_before_ln=True, scaling=1.4)
    adapterhub(
        "own_norms", "LayerNorms of its own on the adapter's input and output, with the input as residual, before the second.",
        {"ln_before": of("a", ln_before=False), "ln_after": of("a", ln_after=False),
         "adapter_residual_before_ln": of("a", adapter_residual_before_ln=False),
         "residual_before_ln true": of("a", residual_before_ln=True),
         "residual_before_ln post_add": of("a", residual_before_ln="post_add"),
         "original_ln_before": of("a", original_ln_before=False), "original_ln_after": of("a", original_ln_after=False),
         "scaling": of("a", scaling=1.0), "non_linearity gelu": of("a", non_linearity="gelu_new")},
        {"a": a}, "a")

    a = dict(PFEIFFER, non_linearity="tanh", original_ln_after=False, residual_before_ln="post_add", ln_after=True,
             reduction_factor=4, scaling=0.05)
    adapterhub(
        "post_add", "The sum before the LayerNorm as residual, added behind a LayerNorm of the adapter's own; the sub-layer's "
        "LayerNorm before the adapter alone.",
        {"original_ln_after": of("a", original_ln_after=True), "residual_before_ln true": of("a", residual_before_ln=True),
         "residual_before_ln false": of("a", residual_before_ln=False),
         "adapter_residual_before_ln": of("a", adapter_residual_before_ln=True), "ln_after": of("a", ln_after=False),
         "scaling": of("a", scaling=1.0), "epsilon of its own LayerNorm": dict(epsilon=1e-12),
         "non_linearity tanh": of("a", non_linearity="relu")},
        {"a": a}, "a")

    a = dict(PFEIFFER, mh_adapter=True, output_adapter=False, non_linearity="silu", residual_before_ln=False, leave_out=[2],
             reduction_factor={"0": 0.8, "default": 8})
    adapterhub(
        "attention_alone", "After attention alone, wider than the model in the first layer, in the last not at all.",
        {"output_adapter": of("a", output_adapter=True), "mh_adapter": of("a", mh_adapter=False, output_adapter=True),
         "leave_out": of("a", leave_out=[]), "reduction_factor": of("a", reduction_factor=8),
         "non_linearity silu": of("a", non_linearity="gelu"), "residual_before_ln": of("a", residual_before_ln=True)},
        {"a": a}, "a")

    a = dict(PFEIFFER, mh_adapter=True, non_linearity="gelu", original_ln_before=False, original_ln_after=False, ln_before=True,
             reduction_factor=8, leave_out=[0])
    adapterhub(
        "no_original_norm", "No LayerNorm of the sub-layer's own. The file has no version: `gelu_orig` is GELU.",
        {"original_ln_before": of("a", original_ln_before=True), "original_ln_after": of("a", original_ln_after=True),
         "ln_before": of("a", ln_before=False), "leave_out": of("a", leave_out=[]),
         "non_linearity gelu_orig": of("a", non_linearity="gelu_new")},
        {"a": a}, "a", after_saving=edit_config("a", unversioned))

    nsmc = dict(PFEIFFER, mh_adapter=True, non_linearity="swish", original_ln_before=False, inv_adapter="nice",
                inv_adapter_reduction_factor=4)
    head = dict(head_name="nsmc", layers=1, use_pooler=True)
    adapterhub(
        "pooler_head", "Houlsby with an invertible block of reduction factor 4; AdapterHub's head of one layer on the pooler "
        "(`heads.nsmc.1`, here `classifier`).",
        {"inv_adapter_reduction_factor": of("nsmc", inv_adapter_reduction_factor=2), "inv_adapter": of("nsmc", inv_adapter=None),
         "non_linearity of all": of("nsmc", non_linearity="relu"), "head use_pooler": {"head": dict(use_pooler=False)}},
        {"nsmc": nsmc}, "nsmc", head=head)

    a = dict(PFEIFFER, mh_adapter=True, original_ln_before=False, original_ln_after=False)
    b = dict(PFEIFFER, non_linearity="tanh", residual_before_ln=False, scaling=0.5, leave_out=[1])
    adapterhub(
        "stack_of_unlike", "Each adapter enters by its own configuration; the last that is there says how the sub-layer ends.",
        {"a original_ln_after": of("a", original_ln_after=True), "a original_ln_before": of("a", original_ln_before=True),
         "b original_ln_after": of("b", original_ln_after=False), "b original_ln_before": of("b", original_ln_before=False),
         "b residual_before_ln": of("b", residual_before_ln=True), "b leave_out": of("b", leave_out=[]),
         "the order": {"setup": Stack("b", "a")}},
        {"a": a, "b": b}, Stack("a", "b"))

    a = dict(PFEIFFER, scaling=2.0, leave_out=[0, 2])
    b = dict(PFEIFFER, non_linearity="gelu", ln_before=True, leave_out=[2])
    c = dict(PFEIFFER, reduction_factor=4, non_linearity="tanh", residual_before_ln=False, ln_after=True, leave_out=[2])
    adapterhub(
        "fuse_three", "Static fusion of three adapters, of two in the first layer and of none in the last; the query is from "
        "before the LayerNorm.",
        {"query_before_ln": {"fusion": dict(query_before_ln=False)}, "value": {"fusion": dict(value=True)},
         "a scaling": of("a", scaling=1.0), "a leave_out": of("a", leave_out=[2]), "b ln_before": of("b", ln_before=False),
         "c residual_before_ln true": of("c", residual_before_ln=True),
         "c residual_before_ln post_add": of("c", residual_before_ln="post_add"),
         "c original_ln_before": of("c", original_ln_before=False), "c original_ln_after": of("c", original_ln_after=False)},
        {"a": a, "b": b, "c": c}, Fuse("a", "b", "c"), fusion=dict(STATIC, query_before_ln=True))

    a = dict(PFEIFFER, non_linearity="gelu_new")
    b = dict(PFEIFFER, residual_before_ln="post_add")
    adapterhub(
        "fuse_residual_before", "No key; the residual is part of what is attended over; values are made behind the softmax.",
        {"residual_before": {"fusion": dict(residual_before=False)}, "key": {"fusion": dict(key=True)},
         "query": {"fusion": dict(query=False)}, "value": {"fusion": dict(value=False)},
         "b residual_before_ln true": of("b", residual_before_ln=True),
         "b residual_before_ln false": of("b", residual_before_ln=False)},
        {"a": a, "b": b}, Fuse("a", "b"),
        fusion=dict(DYNAMIC, key=False, value_before_softmax=False, residual_before=True))

    b = dict(PFEIFFER, mh_adapter=True, non_linearity="tanh", original_ln_before=False, scaling=0.5)
    adapterhub(
        "fuse_key_alone", "Fusions of Houlsby adapters at both places, with a key alone. One adapter's file has no version, "
        "and its configuration is a preset's name, `houlsby+inv`.",
        {"query": {"fusion": dict(query=True)}, "key": {"fusion": dict(key=False)}, "value": {"fusion": dict(value=True)},
         "a inv_adapter": {"configs": {"a": "houlsby"}}, "b scaling": of("b", scaling=1.0)},
        {"a": "houlsby+inv", "b": b}, Fuse("a", "b"), fusion=dict(STATIC, query=False), after_saving=edit_config("a", by_name))

    # Without query and key the scores are large, and the weights nearly 0 and 1 but for a small scale.
    a = dict(PFEIFFER, mh_adapter=True, output_adapter=False, non_linearity="gelu_new", scaling=0.2)
    b = dict(a, non_linearity="tanh", scaling=0.3)
    adapterhub(
        "fuse_plain", "Fusion without query, key and value, after attention alone. The library's `dense`, which it makes for this "
        "and does not use, is in the file. The adapters train.",
        {"query_before_ln": {"fusion": dict(query_before_ln=False)}, "query": {"fusion": dict(query=True)},
         "key": {"fusion": dict(key=True)}, "value": {"fusion": dict(value=True)}, "b scaling": of("b", scaling=1.0)},
        {"a": a, "b": b}, Fuse("a", "b"), fusion=dict(STATIC, query=False, key=False, query_before_ln=True), unfreeze=True)

    ko = dict(PFEIFFER, non_linearity="gelu_new", inv_adapter="nice", inv_adapter_reduction_factor=2)
    x = dict(PFEIFFER, non_linearity="swish", scaling=2.0)
    a = dict(PFEIFFER, residual_before_ln=False, scaling=0.3)
    b = dict(PFEIFFER, non_linearity="tanh", scaling=0.3)
    adapterhub(
        "stack_fuse_stack", "A fusion with a query alone within a stack, with a stack within it. The adapters train, the invertible "
        "block does not.",
        {"without ko": {"setup": Fuse(Stack("x", "a"), "b")}, "without x": {"setup": Stack("ko", Fuse("a", "b"))},
         "x residual_before_ln": of("x", residual_before_ln=False), "b residual_before_ln": of("b", residual_before_ln=False),
         "query": {"fusion": dict(query=False)}, "key": {"fusion": dict(key=True)}},
        {"ko": ko, "x": x, "a": a, "b": b}, Stack("ko", Fuse(Stack("x", "a"), "b")), fusion=dict(STATIC, key=False), unfreeze=True)


# ---------------------------------------------------------------- PEFT
def updated(task_type=TaskType.SEQ_CLS, **options):
    model = made.base_model()
    model.name_or_path = "base"
    model.config._name_or_path = "base"
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(task_type=task_type, lora_dropout=0.1, **options)).eval()
    made.fill(model, only=lambda name: "lora_" in name)
    # What is saved of the base must differ from it, or nothing would show whether it is read.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                std = 0.01 if "embeddings.modules_to_save" in name else 0.2
                parameter.add_(made.normal("perturb." + made.peft_name(name), parameter.shape, std))
    return model


def peft(case, description, changes, safetensors=True, **options):
    def build(**change):
        return updated(**{**options, **change})

    notices(case, build, changes)
    model, folder = build(), OUT / case
    model.save_pretrained(str(folder), safe_serialization=safetensors)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    # PEFT writes sets in the order of their hashes, which is another each time.
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(config[key], list):
            config[key] = sorted(config[key])
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
    again = LoadedPeftModel.from_pretrained(made.base_model(), str(folder))
    assert torch.equal(all_logits(again), all_logits(model)), case
    run(case, model, description, made.peft_name)


def peft_cases():
    peft(
        "lora_dora_rslora", "DoRA under rsLoRA on layers of every kind, with patterns, an alpha that is no whole number, biases "
        "that train, and targets and exclusions by regular expression.",
        {"use_dora": dict(use_dora=False), "use_rslora": dict(use_rslora=False), "bias": dict(bias="none"),
         "lora_alpha": dict(lora_alpha=3), "alpha_pattern": dict(alpha_pattern={}), "rank_pattern": dict(rank_pattern={}),
         "exclude_modules": dict(exclude_modules=None), "target_modules": dict(target_modules=r".*\.(query|key)")},
        r=2, lora_alpha=3.5, use_dora=True, use_rslora=True, bias="lora_only", target_modules=r".*\.(query|key|dense)",
        exclude_modules=r".*layer\.1\..*dense", rank_pattern={"intermediate.dense": 3},
        alpha_pattern={"pooler.dense": 1.5, r"layer\.[02]\.attention\.self\.key": 8})
    peft(
        "lora_every_table", "No task: the classifier is a target and does not train. With it every embedding table, under rsLoRA.",
        {"use_rslora": dict(use_rslora=False), "rank_pattern": dict(rank_pattern={}), "alpha_pattern": dict(alpha_pattern={}),
         **{target: dict(target_modules=[other for other in LORA_TABLES if other != target]) for target in LORA_TABLES}},
        task_type=None, r=4, lora_alpha=6, use_rslora=True, target_modules=LORA_TABLES, rank_pattern={"classifier": 3},
        alpha_pattern={"token_type_embeddings": 9})
    saved = ["pooler", "LayerNorm", "word_embeddings", "position_embeddings", "token_type_embeddings"]
    peft(
        "lora_saved_whole", "Pooler, LayerNorms and embedding tables saved whole beside LoRA, where `all-linear` leaves the pooler "
        "alone.",
        {**{name: dict(modules_to_save=[other for other in saved if other != name]) for name in saved},
         "r": dict(r=3), "lora_alpha": dict(lora_alpha=4)},
        r=2, lora_alpha=2.5, target_modules="all-linear", modules_to_save=saved)
    peft(
        "lora_bias_all", "Every bias trains; targets and exclusions by name, in two layers; the weights as a PyTorch file.",
        {"bias": dict(bias="none"), "exclude_modules": dict(exclude_modules=None),
         "layers_to_transform": dict(layers_to_transform=None), "lora_alpha": dict(lora_alpha=1)},
        safetensors=False, r=2, lora_alpha=5, bias="all", target_modules=["output.dense", "value"],
        exclude_modules=["layer.1.attention.output.dense"], layers_to_transform=[1, 2])


LORA_TABLES = ["word_embeddings", "position_embeddings", "token_type_embeddings", "classifier", "key"]


# ---------------------------------------------------------------- README.md
README = """# Parity fixtures: options that no preset has

Written by `tests/python/option_fixtures.py` (torch {torch}, transformers {transformers}, adapters {adapters}, peft {peft}; CPU float32,
eager attention, dropout off).
Base, batches, experiment and keys are those of [the other fixtures](../README.md), beside two keys of `meta.json`:
`moved` says how far the logits move when one option alone is changed, `without_gradient` names what trains and is nowhere used, which
has neither `grad.` nor `after3.`.

| case | trainable | what | options, and how far the logits move without each |
|---|---|---|---|
{table}

An adapter with a LayerNorm of its own on its input is a PyTorch file, which has the LayerNorm under two names: the library cannot write
it as safetensors. `NAME` in `expected.safetensors` is the second, `adapter_down.0`.
"""


def write_index():
    entries = [dict(case=case, description=description, n_trainable=trainable, skip_after3=skipped)
               for case, description, trainable, skipped in made.INDEX]
    (OUT / "index.json").write_text(json.dumps(entries, indent=1))
    rows = [f"| `{case}` | {trainable} | {description} | "
            + ", ".join(f"{option} {distance:.2g}" for option, distance in MOVED[case].items()) + " |"
            for case, description, trainable, _ in made.INDEX]
    versions = {module.__name__: module.__version__ for module in (torch, made.transformers, adapters, made.peft)}
    (OUT / "README.md").write_text(README.format(table="\n".join(rows), **versions))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    adapterhub_cases()
    peft_cases()
    write_index()
    total = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    print("total bytes", total)
    assert total < 1.5e6


if __name__ == "__main__":
    main()
