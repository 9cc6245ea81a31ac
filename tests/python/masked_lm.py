"""A pre-trained model and its language adapter must give transformers' and adapters' masked-LM logits.

    python tests/python/masked_lm.py target/release/nsmc MODEL [ADAPTER]

Needs torch, transformers, safetensors and adapters. Compares every logit of every token to 1e-4, and
that transformers reports no missing or surplus key.
"""

import json
import subprocess
import sys

import torch
from transformers import AutoTokenizer, BertForMaskedLM

TEXTS = ["정말 [MASK] 영화였다", "배우들 연기가 [MASK] [MASK] ㅋㅋ", "[MASK]", "별로... 돈 아깝다 ㅠㅠ 시간도 [MASK]"]


def main():
    nsmc, folder, adapter = sys.argv[1], sys.argv[2], sys.argv[3:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = BertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info[key], f"{key}: {info[key]}"
    assert model.dtype == torch.float32
    if adapter:
        # Only AdapterHub's own model class undoes the invertible block before the decoder.
        from adapters import BertAdapterModel

        bias = model.cls.predictions.bias
        model = BertAdapterModel.from_pretrained(folder)
        # Its conversion of the head leaves the bias behind.
        model.heads["default"][3].bias.data.copy_(bias)
        name = model.load_adapter(adapter[0], use_safetensors=True)
        model.set_active_adapters(name)
    model.eval()

    arguments = [nsmc, "fill-mask", "--model", folder, "--logits"]
    arguments += ["--adapter", adapter[0]] if adapter else []
    for text in TEXTS:
        arguments += ["--text", text]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    worst = 0.0
    for text, line in zip(TEXTS, output.splitlines(), strict=True):
        ours = json.loads(line)
        batch = tokenizer(text, return_tensors="pt")
        assert batch["input_ids"][0].tolist() == ours["input_ids"], text
        with torch.no_grad():
            theirs = model(**batch).logits[0]
        worst = max(worst, (theirs - torch.tensor(ours["logits"])).abs().max().item())
        print(text, "→", [mask["predictions"][0]["token"] for mask in ours["masks"]])
    print(f"{len(TEXTS)} texts: largest difference {worst:.2e} of logits up to {theirs.abs().max():.1f}")
    assert worst < 1e-4


main()
