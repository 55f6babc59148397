"""A tiny random T5 and batches written out by hand. Its weights are ten times T5's usual ones, so that what a
test changes is seen in the logits."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from datamodules.batches import IGNORED, Seq2SeqBatch
from lightning_modules.backbones.t5 import new_model

VOCABULARY = 40


@pytest.fixture
def tiny_model():
    """A T5 of the size `tiny`, in evaluation mode; always the same weights."""
    torch.manual_seed(0)
    model = new_model("tiny", VOCABULARY).eval()
    with torch.no_grad():
        model.shared.weight.mul_(0.3)
        for name, parameter in model.named_parameters():
            if "layer_norm" not in name and "shared" not in name:
                parameter.mul_(3)
    return model


@pytest.fixture
def make_batch():
    """Builds a batch from lists of ids: inputs and labels, a list a row."""

    def build(inputs, labels, users=None):
        width, length = max(map(len, inputs)), max(1, max(map(len, labels)))
        return Seq2SeqBatch(
            torch.tensor([row + [0] * (width - len(row)) for row in inputs]),
            torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in inputs]),
            torch.tensor([row + [IGNORED] * (length - len(row)) for row in labels]),
            torch.tensor(users or [-1] * len(inputs)),
            torch.arange(len(inputs)),
        )

    return build


@pytest.fixture
def batch(make_batch):
    """Six rows of three users, of different lengths."""
    return make_batch(
        [[5, 6, 7, 1], [8, 1], [9, 10, 11, 12, 13, 1], [14, 15, 1], [16, 1], [17, 18, 19, 1]],
        [[20, 21, 1], [22, 23, 24, 25, 1], [26, 1], [27, 28, 1], [29, 30, 31, 32, 1], [1]],
        users=[0, 0, 1, 1, 2, 2],
    )


@pytest.fixture(scope="session")
def transformers_serve(chat_directory, tmp_path_factory):
    """The base URL of a real `transformers serve` on loopback with that model; ended after the tests."""
    pytest.importorskip("openai")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", chat_directory, "--host", "127.0.0.1"]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(600):  # a busy machine takes its time
            assert server.poll() is None, log.read_text()
            try:
                opener.open(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
