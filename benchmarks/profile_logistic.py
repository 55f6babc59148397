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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.experiment import load_experiment

C = 30.0


def judge(experiment: Path, network: Path, analyzer: str, overrides: list[str]) -> list[dict[str, object]]:
    """Rows of `judgements.parquet` for all attributes of the language, from `words` or `characters`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from lightning_modules.markov_logic.decisions import Decision

    warnings.filterwarnings("ignore")  # attributes with rare values do not always converge
    _, data, _ = load_experiment(experiment, [*overrides, f"--data.network={network}"])
    data.setup("test")
    rows = [row for row, user in enumerate(data.user_of_chunk) if data.users[user] in data.folds]
    user = data.user_of_chunk[rows]
    fold = np.array([data.folds[data.users[one]] for one in user])
    weight = 1 / data.num_chunks[user]
    texts = ["\n".join(post.text for post in data.chunks[row].posts) for row in rows]
    if analyzer == "words":
        documents = [data.facts.words.segment(text) for text in texts]
        settings = {"analyzer": lambda words: words}
    else:
        documents, settings = texts, {"analyzer": "char", "ngram_range": (1, 3), "max_features": 50_000}
    attributes = list(data.language.attributes.values())
    posteriors = [np.zeros((len(rows), len(attribute.values))) for attribute in attributes]
    for held_out in range(data.num_folds):
        vectors = TfidfVectorizer(sublinear_tf=True, min_df=5, **settings)
        learns = np.flatnonzero(fold != held_out)
        seen = vectors.fit_transform([documents[place] for place in learns])
        test = np.flatnonzero(fold == held_out)
        new = vectors.transform([documents[place] for place in test])
        for column, found in enumerate(posteriors):
            known = data.labels[user[learns], column] >= 0
            labels = data.labels[user[learns[known]], column]
            fitted = LogisticRegression(C=C, max_iter=300).fit(seen[known], labels, sample_weight=weight[learns[known]])
            found[np.ix_(test, fitted.classes_)] = fitted.predict_proba(new)
    judgements: list[dict[str, object]] = []
    for column, (attribute, found) in enumerate(zip(attributes, posteriors, strict=True)):
        values = list(attribute.values)
        for one in np.unique(user[data.labels[user, column] >= 0]):
            common = {"user": data.users[one], "is_short": data.is_short[one]}
            common |= {"attribute": attribute.name, "label": values[data.labels[one, column]]}
            judgements += [
                {**common, "decision": decision, "value": values[best], "posterior": posterior}
                for decision, best, posterior in Decision().judgements(found[user == one])
            ]
    return judgements


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory of the learnt network, whose folds are taken")
    parser.add_argument("--config", type=Path, default=Path("experiments/profile_mln_ja.yaml"))
    parser.add_argument("--analyzer", choices=["words", "characters"], default="words", help="n-grams of 1 to 3")
    parser.add_argument("--output", type=Path, default=Path("runs/profile_logistic"))
    options, overrides = parser.parse_known_args()
    judgements = judge(options.config, options.run / "network", options.analyzer, overrides)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "judgements.parquet"
    pq.write_table(pa.Table.from_pylist(judgements), path.with_suffix(".partial"))
    path.with_suffix(".partial").rename(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
