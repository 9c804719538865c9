"""Trains the digits model and writes model.onnx and inputs.npz: ``python models/digits/train.py``.

Needs PyTorch, scikit-learn and onnx. Seeded and on one thread, so the same versions give the same files.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

FOLDER = Path(__file__).resolve().parent
HELD_OUT = 200
EPOCHS = 60
BATCH = 64


class DigitsNet(nn.Module):
    """Two stages of 24 and 48 channels, each with a residual block; no BatchNorm, so nothing needs folding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 3, padding=1)
        self.conv2 = nn.Conv2d(24, 24, 3, padding=1)
        self.conv3 = nn.Conv2d(24, 24, 3, padding=1)
        self.conv4 = nn.Conv2d(24, 48, 3, padding=1, stride=2)
        self.conv5 = nn.Conv2d(48, 48, 3, padding=1)
        self.fc = nn.Linear(48, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.conv1(image))
        x = functional.relu(x + self.conv3(functional.relu(self.conv2(x))))
        x = functional.relu(self.conv4(x))
        x = functional.relu(x + self.conv5(x))
        return self.fc(x.mean(dim=(2, 3)))


def main() -> None:
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)  # the scans have 17 grey levels, 0 to 16
    labels = digits.target.astype(np.int64)
    kept, held_out = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=0)
    network = train(images[kept], labels[kept])
    model = export({name: tensor.numpy() for name, tensor in network.state_dict().items()})
    onnx.checker.check_model(model, full_check=True)
    (FOLDER / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    np.savez_compressed(FOLDER / "inputs.npz", image=images[held_out], labels=labels[held_out])
    with torch.no_grad():
        hits = network(torch.from_numpy(images[held_out])).argmax(1).numpy() == labels[held_out]
    print(f"held-out accuracy: {hits.mean():.4f} ({hits.sum()} of {len(hits)})")


def train(images: np.ndarray, labels: np.ndarray) -> DigitsNet:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    network = DigitsNet()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    steps = EPOCHS * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = functional.cross_entropy(network(shifted(x[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def shifted(batch: torch.Tensor) -> torch.Tensor:
    """Move the batch by up to one pixel, the same way for all its images."""
    down, right = (int(n) for n in torch.randint(-1, 2, (2,)))
    return functional.pad(batch, (1, 1, 1, 1))[:, :, 1 - down : 9 - down, 1 - right : 9 - right]


def export(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Write the graph node by node, so that its names say what they are: ``image`` → ``logits``."""
    blocks = _load_blocks()
    g = blocks.Graph("digits", blocks.TrainedWeights(weights))

    def conv(x: str, name: str, n_in: int, n_out: int, stride: int = 1) -> str:
        return blocks.conv(g, x, name, n_in, n_out, 3, stride=stride)

    x = g.input("image", onnx.TensorProto.FLOAT, ["N", 1, 8, 8])
    x = g.node("Relu", [conv(x, "conv1", 1, 24)], "relu1")
    inner = g.node("Relu", [conv(x, "conv2", 24, 24)], "relu2")
    x = g.node("Relu", [g.node("Add", [x, conv(inner, "conv3", 24, 24)], "residual1")], "relu3")
    x = g.node("Relu", [conv(x, "conv4", 24, 48, stride=2)], "relu4")
    x = g.node("Relu", [g.node("Add", [x, conv(x, "conv5", 48, 48)], "residual2")], "relu5")
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x], "avgpool")], "flatten", axis=1)
    parameters = [g.weight("fc.weight", (10, 48)), g.weight("fc.bias", (10,))]
    g.node("Gemm", [x, *parameters], "fc", output="logits", transB=1)
    g.output("logits", ["N", 10])
    return g.proto


def _load_blocks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pytest_trt_model_blocks", FOLDER.parent / "blocks.py")
    if spec is None or spec.loader is None:
        raise ImportError("models/blocks.py is missing beside this folder")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
