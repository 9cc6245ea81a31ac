"""Training throughput of the Python peers on the project's own workload.

One process times one method of one peer stack on NSMC-shaped batches:

    python benches/peer.py --method full|lora|adapter|adapterfusion --padding max|batch|group
                         [--steps 10] [--model mbert|mini] [--lengths FILE] [--threads N]

Weights are random (speed does not depend on them), dropout is on, loss is cross-entropy,
the optimiser is torch AdamW (eps 1e-8), gradient norm clipped at 1.0: the paper's recipe.
--lengths: one batch a line, token counts of its sequences, so that another program can be
timed on the same batches. --padding: `max` pads to 128 (the paper), `batch` to the longest of
the batch (HF DataCollatorWithPadding), `group` first sorts all sequences of the file by length
and regroups them (HF group_by_length, the peer's best case).

On a GPU, float32 products may round to TF32, as burn's do; bfloat16 is through autocast.

Prints one JSON line: samples_per_s, tokens_per_s (real tokens), step_s (median), peak_rss_mib (on a
GPU what its allocator reserved at most).
Needs: torch, transformers, peft, adapters, numpy.
"""
import argparse, json, resource, statistics, time
import torch
from transformers import BertConfig, BertForSequenceClassification

SIZES = {
    "mbert": dict(vocab_size=119547, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "mini": dict(vocab_size=8000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024),
}


def build(method, size, rank, device):
    config = BertConfig(**SIZES[size], num_labels=2)
    if method in ("adapter", "adapterfusion"):
        import adapters
        from adapters import AdapterConfig
        from adapters.composition import Fuse
        model = BertForSequenceClassification(config)
        adapters.init(model)
        model.add_adapter("nsmc", config=AdapterConfig.load("seq_bn", reduction_factor=16))
        if method == "adapter":
            model.train_adapter("nsmc")
        else:
            model.add_adapter("ko", config=AdapterConfig.load("seq_bn", reduction_factor=2, non_linearity="gelu"))
            model.add_adapter_fusion(Fuse("ko", "nsmc"))
            model.train_adapter_fusion(Fuse("ko", "nsmc"))
        for p in model.classifier.parameters():
            p.requires_grad = True
    else:
        model = BertForSequenceClassification(config)
        if method == "lora":
            from peft import LoraConfig, get_peft_model
            model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=rank, target_modules=["query", "key", "value", "dense"], exclude_modules=["pooler.dense", "bert.pooler.dense"]))
    return model.to(device).train()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--method", default="full")
    a.add_argument("--padding", default="batch")
    a.add_argument("--model", default="mbert")
    a.add_argument("--lengths", default="benches/nsmc-lengths.txt")
    a.add_argument("--steps", type=int, default=10)
    a.add_argument("--warmup", type=int, default=2)
    a.add_argument("--rank", type=int, default=16)
    a.add_argument("--threads", type=int, default=0)
    a.add_argument("--device", default="cpu")
    a.add_argument("--dtype", default="float32", help="float32, or bfloat16 through autocast")
    a = a.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    if a.device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(0)
    model = build(a.method, a.model, a.rank, a.device)
    params = [p for p in model.parameters() if p.requires_grad]
    # What transformers' Trainer takes by default with this PyTorch.
    optimizer = torch.optim.AdamW(params, lr=2e-5, eps=1e-8, fused=True)
    batches = [[int(n) for n in line.split()] for line in open(a.lengths) if line.strip()]
    if a.padding == "group":
        size = len(batches[0])
        flat = sorted(n for b in batches for n in b)
        batches = [flat[i : i + size] for i in range(0, len(flat), size)]
        generator = torch.Generator().manual_seed(0)
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    vocab = SIZES[a.model]["vocab_size"]
    times, samples, tokens = [], 0, 0
    for step in range(a.warmup + a.steps):
        lengths = batches[step % len(batches)]
        width = 128 if a.padding == "max" else max(lengths)
        ids = torch.randint(5, vocab, (len(lengths), width))
        mask = torch.zeros(len(lengths), width, dtype=torch.long)
        for i, n in enumerate(lengths):
            mask[i, :n] = 1
        batch = dict(input_ids=(ids * mask).to(a.device), attention_mask=mask.to(a.device), labels=torch.randint(0, 2, (len(lengths),)).to(a.device))
        started = time.perf_counter()
        with torch.autocast(a.device, dtype=torch.bfloat16, enabled=a.dtype == "bfloat16"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        elapsed = time.perf_counter() - started
        if step >= a.warmup:
            times.append(elapsed)
            samples += len(lengths)
            tokens += sum(lengths)
    if a.device.startswith("cuda"):
        peak = torch.cuda.max_memory_reserved() >> 20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(dict(
        method=a.method, padding=a.padding, model=a.model, device=a.device, dtype=a.dtype, steps=a.steps,
        trainable=sum(p.numel() for p in params), samples_per_s=round(samples / sum(times), 3), tokens_per_s=round(tokens / sum(times), 1),
        step_s=round(statistics.median(times), 4), peak_rss_mib=peak, torch=torch.__version__)))


main()
