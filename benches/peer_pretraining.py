"""Tokens per second of masked-language-model pre-training in PyTorch, at the size of models/mini.

    python benches/peer_pretraining.py [--texts FILE] [--tokens 3072] [--steps 20]

One review a line in --texts (tokenised with models/mini); batches hold about --tokens tokens of
reviews of like length (windows of 64 batches, as `nsmc pretrain` makes them), padded to their longest;
15 % of the tokens are masked, and only their logits are computed, as in `nsmc pretrain`; torch AdamW,
gradient norm clipped at 1. Prints one JSON line. Needs: torch, transformers.
"""
import argparse, json, resource, statistics, time
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM


def batches(lengths, tokens, window, generator):
    order = torch.randperm(len(lengths), generator=generator).tolist()
    made, batch, size = [], [], 0
    per_window = window * tokens
    chunk, total = [], 0
    for i in order:
        chunk.append(i)
        total += lengths[i]
        if total >= per_window:
            for j in sorted(chunk, key=lambda i: lengths[i]):
                if size + lengths[j] > tokens and batch:
                    made.append(batch)
                    batch, size = [], 0
                batch.append(j)
                size += lengths[j]
            chunk, total = [], 0
    return [made[i] for i in torch.randperm(len(made), generator=generator).tolist()]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--texts", required=True)
    a.add_argument("--model", default="models/mini")
    a.add_argument("--tokens", type=int, default=3072)
    a.add_argument("--window", type=int, default=64)
    a.add_argument("--steps", type=int, default=20)
    a.add_argument("--warmup", type=int, default=3)
    a = a.parse_args()
    torch.manual_seed(0)
    config = BertConfig(vocab_size=8000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
                        max_position_embeddings=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = BertForMaskedLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    texts = [line.rstrip("\n") for line in open(a.texts, encoding="utf-8")]
    ids = tokenizer(texts, truncation=True, max_length=128)["input_ids"]
    generator = torch.Generator().manual_seed(0)
    made = batches([len(i) for i in ids], a.tokens, a.window, generator)
    times, tokens = [], 0
    for step in range(a.warmup + a.steps):
        rows = made[step % len(made)]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
        real = batch["attention_mask"].bool()
        masked = (torch.rand(real.shape) < 0.15) & real
        labels = batch["input_ids"][masked]
        batch["input_ids"][masked] = tokenizer.mask_token_id
        started = time.perf_counter()
        hidden = model.bert(**{key: batch[key] for key in ("input_ids", "attention_mask")}).last_hidden_state
        loss = torch.nn.functional.cross_entropy(model.cls(hidden[masked]), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        elapsed = time.perf_counter() - started
        if step >= a.warmup:
            times.append(elapsed)
            tokens += int(real.sum())
    print(json.dumps(dict(tokens_per_step=tokens / a.steps, tokens_per_s=round(tokens / sum(times), 1), step_s=round(statistics.median(times), 4),
                          peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, torch=torch.__version__)))


main()
