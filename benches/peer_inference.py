"""What `nsmc bench inference` times, in transformers: encoding the reviews, predicting the test set.

    nsmc bench inference --run RUN
    nsmc export --run RUN --format hf --out MODEL
    python benches/peer_inference.py --model MODEL --train ratings_train.txt --test ratings_test.txt

Encoding is the fast tokenizer's batch call, which runs on all cores; prediction has no gradients,
batches sorted by length and padded to their longest. Prints one JSON line, medians of the rounds.
Needs: torch, transformers.
"""
import argparse, json, os, resource, statistics, time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
import torch
import transformers


def documents(path):
    with open(path, encoding="utf-8") as lines:
        next(lines)
        return [line.rstrip("\n").split("\t")[1] for line in lines]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--model", required=True)
    a.add_argument("--train", required=True)
    a.add_argument("--test", required=True)
    a.add_argument("--batch-size", type=int, default=64)
    a.add_argument("--max-length", type=int, default=128)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--device", default="cpu")
    a = a.parse_args()
    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(a.model, dtype=torch.float32).to(a.device).eval()
    train, test = documents(a.train), documents(a.test)
    encode, predict = [], []
    for _ in range(a.rounds):
        started = time.perf_counter()
        tokenizer(train, truncation=True, max_length=a.max_length)
        encoded = tokenizer(test, truncation=True, max_length=a.max_length)["input_ids"]
        encode.append(time.perf_counter() - started)
        started = time.perf_counter()
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        logits = torch.empty(len(encoded), model.config.num_labels)
        with torch.inference_mode():
            for at in range(0, len(order), a.batch_size):
                rows = order[at : at + a.batch_size]
                batch = tokenizer.pad({"input_ids": [encoded[i] for i in rows]}, return_tensors="pt").to(a.device)
                logits[rows] = model(**batch).logits.cpu()
        predict.append(time.perf_counter() - started)
    tokens = sum(len(ids) for ids in encoded)
    print(json.dumps(dict(
        device=a.device, batch_size=a.batch_size, rounds=a.rounds, encoded_reviews=len(train) + len(test), encode_s=statistics.median(encode),
        test_reviews=len(test), tokens=tokens, predict_s=statistics.median(predict), tokens_per_s=tokens / statistics.median(predict),
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, torch=torch.__version__, transformers=transformers.__version__)))


main()
