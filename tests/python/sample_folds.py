"""How hard datasets/sample is: runs of it trained again on six folds of its 2,400 reviews.

    cargo xtask reproduce            # where NSMC cannot be fetched
    python tests/python/sample_folds.py target/release/nsmc runs/vanilla-all-s42-* runs/tfidf-all-*

Reviews of each label are ordered by the sha256 of their ids, as README.md there says, and the
first 200 of each, the test set, are the first fold. Each run's configuration is trained on the
other five folds. Prints the accuracies and, for the first two runs, McNemar's exact test.
"""

import hashlib, math, re, subprocess, sys, tempfile
from pathlib import Path

FOLDS, FILES = 6, ["ratings_train.txt", "ratings_test.txt"]
SAMPLE = Path(__file__).parents[2] / "datasets" / "sample"


def folds():
    header, reviews = "", []
    for name in FILES:
        header, *lines = (SAMPLE / name).read_text("utf-8").splitlines()
        reviews += [line.split("\t") for line in lines]
    labels = {label: [] for label in "01"}
    for review in sorted(reviews, key=lambda review: hashlib.sha256(review[0].encode()).digest()):
        labels[review[2]].append("\t".join(review))
    size = len(reviews) // 2 // FOLDS
    for fold in range(FOLDS):
        cut = slice(fold * size, (fold + 1) * size)
        test = sorted(sum((labels[label][cut] for label in "01"), []))
        train = sorted({line for lines in labels.values() for line in lines} - set(test))
        yield ["\n".join([header, *lines]) + "\n" for lines in (train, test)]


def right(nsmc, run, folder, texts):
    """The ids of the test reviews that a run's configuration gets right, trained on this fold."""
    config = (Path(run) / "config.toml").read_text("utf-8")
    for name, text in zip(FILES, texts):
        path, rows = folder / name, text.count("\n") - 1
        path.write_text(text, "utf-8")
        table = (
            f'path = "{path}"\nsha256 = "{hashlib.sha256(text.encode()).hexdigest()}"\n'
            f"class_counts = [{rows // 2}, {rows // 2}]"
        )
        pattern = rf'path = "[^"]*{name}"\nsha256 = "\w+"\nclass_counts = \[[^\]]*\]'
        config, found = re.subn(pattern, table, config)
        assert found == 1, f"{run}/config.toml: {name}"
    (folder / "config.toml").write_text(config, "utf-8")
    command = [nsmc, "train", "--config", folder / "config.toml", "--out", folder / "run"]
    subprocess.run([*command, "--device", "cpu"], check=True, capture_output=True)
    _, *lines = (folder / "run" / "predictions.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return {id for id, label, _, no, yes in rows if (float(yes) > float(no)) == (label == "1")}


def main():
    nsmc, *runs = sys.argv[1:]
    got = {run: [] for run in runs}
    for texts in folds():
        for run in runs:
            with tempfile.TemporaryDirectory() as folder:
                got[run].append(right(nsmc, run, Path(folder), texts))
    for run, found in got.items():
        shares = [len(ids) / 400 for ids in found]
        print(f"{sum(shares) / FOLDS:.4f}", " ".join(f"{share:.4f}" for share in shares), run)
    if len(runs) > 1:
        first, second = (set().union(*got[run]) for run in runs[:2])
        a, b = len(first - second), len(second - first)
        tail = sum(math.comb(a + b, k) for k in range(min(a, b) + 1)) / 2 ** (a + b)
        print(f"only the first right {a}, only the second {b}, McNemar's p {min(1, 2 * tail):.2g}")


main()
