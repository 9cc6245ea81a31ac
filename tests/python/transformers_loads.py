"""A run's checkpoint loaded by transformers must give the run's own logits.

    python tests/python/transformers_loads.py target/release/nsmc runs/RUN

Needs torch, transformers and safetensors. Compares, on texts of many lengths: tokens through the
whole pipeline, every logit to 1e-5, and that transformers reports no missing or surplus key.
"""

import json
import pathlib
import subprocess
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

TEXTS = [
    "",
    "ㅋㅋ",
    "정말 재미있는 영화였어요!!",
    "별로... 돈 아깝다 ㅠㅠ",
    '"인용"이 있는 리뷰, 10점 만점에 3점',
    "最高 good 재밌 ^^;; ♥",
    "아 더빙.. 진짜 짜증나네요 목소리 " * 12,
]


def main():
    nsmc, run = sys.argv[1], pathlib.Path(sys.argv[2])
    config = (run / "config.toml").read_text()
    selection = "best" if 'selection = "best"' in config else "last"
    max_length = int(next(l for l in config.splitlines() if l.startswith("max_length")).split("=")[1])
    folder = run / "checkpoint" / selection

    arguments = [nsmc, "predict", "--run", run, "--device", "cpu"]
    for text in TEXTS:
        arguments += ["--text", text]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    ours = [list(json.loads(line)["logits"].values()) for line in output.splitlines()]

    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info[key], f"{key}: {info[key]}"
    model.eval()
    worst = 0.0
    for fast in (True, False):
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=fast)
        assert type(tokenizer).__name__.startswith("BertTokenizer"), type(tokenizer)
        batch = tokenizer(
            TEXTS, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            theirs = model(**batch).logits
        worst = max(worst, (theirs - torch.tensor(ours)).abs().max().item())
    print(f"{len(TEXTS)} texts, {theirs.shape[1]} logits each: largest difference {worst:.2e}")
    assert worst < 1e-5


main()
