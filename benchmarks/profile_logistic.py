"""Profiles by TF-IDF and logistic regression (scikit-learn): what the Markov logic network is compared with.

    python -m benchmarks.profile_logistic runs/profile_mln_ja --config experiments/profile_mln_ja.yaml

Takes posts, chunks, labels and folds as the experiment's data module gives them, and the words of the same segmenter,
or characters; writes `<output>/judgements.parquet` as `lightning test` does, so that `lightning profile_table` compares
them. Each fold's regression is fitted on the chunks of the other folds, a user counting one however many chunks there
are. The strength of the regularisation was chosen on these very users, which favours it.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artefacts.files import replacing
from artefacts.layout import JUDGEMENTS, NETWORK
from benchmarks.experiment import load_experiment

C = 30.0


def judge(experiment: Path, network: Path, analyzer: str, overrides: list[str]) -> list[dict[str, object]]:
    """Rows of `judgements.parquet` for all attributes of the language, from `words` or `characters`."""
    from lightning_modules.markov_logic.decisions import Decision

    warnings.filterwarnings("ignore")  # attributes with rare values do not always converge
    _, data, _ = load_experiment(experiment, [*overrides, f"--data.network={network}"])
    data.setup("test")
    rows = [row for row, user in enumerate(data.user_of_chunk) if data.users[user] in data.folds]
    user = data.user_of_chunk[rows]
    attributes = list(data.language.attributes.values())
    judgements: list[dict[str, object]] = []
    for column, (attribute, posterior) in enumerate(zip(attributes, posteriors(data, rows, analyzer), strict=True)):
        values = list(attribute.values)
        for one in np.unique(user[data.labels[user, column] >= 0]):
            common = {"user": data.users[one], "is_short": data.is_short[one]}
            common |= {"attribute": attribute.name, "label": values[data.labels[one, column]]}
            judgements += [
                {**common, "decision": decision, "value": values[best], "posterior": share}
                for decision, best, share in Decision().judgements(posterior[user == one])
            ]
    return judgements


def posteriors(data: Any, rows: list[int], analyzer: str) -> list[np.ndarray]:
    """(rows, values) for each attribute, from regressions on the chunks of other folds."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    user = data.user_of_chunk[rows]
    fold = np.array([data.folds[data.users[one]] for one in user])
    weight = 1 / data.num_chunks[user]
    documents = ["\n".join(post.text for post in data.chunks[row].posts) for row in rows]
    settings: dict[str, Any] = {"analyzer": "char", "ngram_range": (1, 3), "max_features": 50_000}
    if analyzer == "words":
        documents = [data.facts.words.segment(text) for text in documents]
        settings = {"analyzer": lambda words: words}
    result = [np.zeros((len(rows), len(attribute.values))) for attribute in data.language.attributes.values()]
    for held_out in range(data.num_folds):
        vectors = TfidfVectorizer(sublinear_tf=True, min_df=5, **settings)
        train, test = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
        train_vectors = vectors.fit_transform([documents[row] for row in train])
        test_vectors = vectors.transform([documents[row] for row in test])
        for column, posterior in enumerate(result):
            known = data.labels[user[train], column] >= 0
            labels = data.labels[user[train[known]], column]
            regression = LogisticRegression(C=C, max_iter=300)
            regression.fit(train_vectors[known], labels, sample_weight=weight[train[known]])
            posterior[np.ix_(test, regression.classes_)] = regression.predict_proba(test_vectors)
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory of the learnt network, whose folds are taken")
    parser.add_argument("--config", type=Path, default=Path("experiments/profile_mln_ja.yaml"))
    parser.add_argument("--analyzer", choices=["words", "characters"], default="words", help="n-grams of 1 to 3")
    parser.add_argument("--output", type=Path, default=Path("runs/profile_logistic"))
    options, overrides = parser.parse_known_args()
    judgements = judge(options.config, options.run / NETWORK, options.analyzer, overrides)
    path = options.output / JUDGEMENTS
    with replacing(path) as partial:
        pq.write_table(pa.Table.from_pylist(judgements), partial)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
