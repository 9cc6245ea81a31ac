"""Writes cases.json: what crates/baselines/tests/scikit_learn.rs compares with.

    python tests/baselines/make_cases.py

Needs scikit-learn; its version is written into the file. The texts are reviews of datasets/sample and
a few that a vectoriser may trip over.
"""

import json
import pathlib

import numpy
import sklearn
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

HERE = pathlib.Path(__file__).parent
SAMPLE = HERE.parent.parent / "datasets" / "sample"
ODD = ["", " ", "ㅋㅋㅋㅋㅋㅋㅋㅋ", "GREAT   movie\t\tÄÖ İSTANBUL ΟΔΥΣΣΕΥΣ", "재미\u3000\x1c없다", "👍🏻👍🏻 최고 a", "\"굿\" \\n"]


def reviews(name, count):
    lines = (SAMPLE / name).read_text(encoding="utf-8").split("\n")[1 : count + 1]
    rows = [line.split("\t") for line in lines]
    return [row[1] for row in rows], [int(row[2]) for row in rows]


def case(name, texts, labels, tested, classes, vectoriser, c):
    tfidf = TfidfVectorizer(analyzer="char", **vectoriser)
    rows = tfidf.fit_transform(texts)
    # As near to the optimum as double precision comes: what is compared is no solver's path.
    model = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(rows, labels)
    row = tfidf.transform(tested)
    return {
        "name": name,
        "texts": texts,
        "labels": labels,
        "classes": classes,
        "tested": tested,
        "vectoriser": vectoriser,
        "c": c,
        "features": rows.shape[1],
        "entries": int(rows.nnz),
        "row_sums": numpy.asarray(row.sum(axis=1)).ravel().tolist(),
        "probabilities": model.predict_proba(row).tolist(),
    }


def main():
    texts, labels = reviews("ratings_train.txt", 80)
    tested, _ = reviews("ratings_test.txt", 12)
    texts, labels = texts + ODD, labels + [index % 2 for index in range(len(ODD))]
    tested = tested + ODD
    three = [index % 3 if label else label for index, label in enumerate(labels)]
    options = lambda low, high, min_df, sublinear: {
        "ngram_range": (low, high),
        "min_df": min_df,
        "sublinear_tf": sublinear,
    }
    cases = [
        case("two classes", texts, labels, tested, 2, options(1, 4, 2, True), 3.0),
        case("plain counts", texts, labels, tested, 2, options(2, 3, 1, False), 0.5),
        case("three classes", texts, three, tested, 3, options(1, 3, 2, True), 10.0),
    ]
    document = {"scikit_learn": sklearn.__version__, "cases": cases}
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (HERE / "cases.json").write_text(text + "\n", encoding="utf-8")


main()
