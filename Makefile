# make quickstart   environment, corpus, tokenizer, backbone, adapters of 24 real users, table and plot
# make profiles     Markov logic and logistic regression side by side (REAL_PERSONA_CHAT names the corpus; half an hour)
# make test         environment and the whole test suite
# make lint         style and room contracts
# make benchmarks   side-by-side measurements against named peers (needs the quickstart)

PYTHON ?= python3
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: quickstart profiles test lint benchmarks clean chromium

$(VENV)/installed-%: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...")'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

quickstart: $(VENV)/installed-quickstart
	lightning prepare --config experiments/corpora/chitchat.yaml
	lightning fit     --config experiments/pretrain_small.yaml
	lightning fit     --config experiments/lora_r12.yaml
	lightning test    --config experiments/lora_r12.yaml
	lightning predict --config experiments/base.yaml
	lightning predict --config experiments/lora_r12.yaml
	lightning table   --config experiments/tables/quickstart.yaml

PROFILES := --config experiments/profile_mln_ja.yaml
profiles: $(VENV)/installed-dev
	lightning fit  $(PROFILES)
	lightning test $(PROFILES)
	lightning fit  $(PROFILES) --config experiments/conditions/pairs.yaml
	lightning test $(PROFILES) --config experiments/conditions/pairs.yaml
	lightning fit  $(PROFILES) --config experiments/conditions/relations.yaml
	lightning test $(PROFILES) --config experiments/conditions/relations.yaml
	python -m benchmarks.profile_logistic runs/profile_mln_ja $(PROFILES) --output runs/profile_logistic
	python -m benchmarks.profile_logistic runs/profile_mln_ja $(PROFILES) --output runs/profile_logistic_characters \
		--analyzer characters
	lightning profile_table --config experiments/tables/profiles_ja.yaml

test: $(VENV)/installed-dev chromium
	python -m pytest -n 2 --dist loadfile

# The page for annotators is tested in a real browser; where there is none, that test is skipped (under CI=true it fails).
chromium:
	@{ command -v chromium || command -v google-chrome; } >/dev/null && command -v chromedriver >/dev/null \
		|| { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium chromium-driver; } \
		|| echo "chromium and chromedriver are missing and cannot be installed here; one test needs them"

lint: $(VENV)/installed-dev
	ruff check .
	ruff format --check .
	lint-imports --config setup.cfg

benchmarks: $(VENV)/installed-dev
	python -m benchmarks.pretraining
	python -m benchmarks.adapters
	python -m benchmarks.generation
	python -m benchmarks.reply_pairs
	python -m benchmarks.preparation

clean:
	rm -rf data runs .pytest_cache .ruff_cache
