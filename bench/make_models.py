#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the larger packages of `make bench` with torch 2.13.0: ResNet-18 at full width, BERT-base-like and GPT-2 small
with random weights, for one thread; and four large Linear layers, whose 200 MB of constants are not in the package but
in two sets beside it, linears.a.safetensors and linears.b.safetensors. Each NAME.pt2 has its inputs beside it as NAME.npz.
What is there already stays.

    make_models.py --out DIR [--only NAME ...]
"""
import argparse
import os
import shutil
import tempfile

import numpy as np
import torch
from torch import nn

F = torch.nn.functional


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.c2, self.b2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.down = None
        if stride != 1 or cin != cout:
            self.down = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


class ResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
                                  nn.MaxPool2d(3, 2, 1))
        blocks, cin = [], 64
        for cout, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [Block(cin, cout, stride), Block(cout, cout, 1)]
            cin = cout
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(512, 1000)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class First(nn.Module):
    """One tensor out of a transformers model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids, return_dict=False)[0]


def resnet18():
    return ResNet18(), (torch.randn(1, 3, 224, 224),)


def bert():
    from transformers import BertConfig, BertModel
    return First(BertModel(BertConfig(use_cache=False))), (torch.randint(0, 30000, (1, 128)),)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel
    return First(GPT2LMHeadModel(GPT2Config(use_cache=False))), (torch.randint(0, 50000, (1, 64)),)


def linears():
    return nn.Sequential(*[nn.Linear(3584, 3584) for _ in range(4)]), (torch.randn(4, 3584),)


EXTERNAL = {"linears"}


@torch.library.custom_op("pt2box_test::triple", mutates_args=())
def triple(x: torch.Tensor, k: int) -> torch.Tensor:
    return x * 3 + k


@triple.register_fake
def _(x, k):
    return torch.empty_like(x)


class Named(nn.Module):
    """So many calls of an operator that a plugin has (tests/plugins/example.c), on 1 KiB."""

    def __init__(self, n):
        super().__init__()
        self.n = n

    def forward(self, x):
        y = x.relu()
        for i in range(self.n):
            y = torch.ops.pt2box_test.triple(y, i)
        return y + 1


def named0():
    return Named(0), (torch.randn(256),)


def named100():
    return Named(100), (torch.randn(256),)


def save_constants(module, path):
    from safetensors.torch import save_file
    save_file(module.state_dict(), path + ".a.safetensors")
    save_file({k: -v for k, v in module.state_dict().items()}, path + ".b.safetensors")


def make(name, out):
    torch.manual_seed(0)
    module, inputs = globals()[name]()
    if name in EXTERNAL:
        save_constants(module, os.path.join(out, name))
    cache = tempfile.mkdtemp()
    # Inductor's cache key ignores weight values, and the thread count is compiled in.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    try:
        with torch.no_grad():
            program = torch.export.export(module.eval(), inputs)
            torch._inductor.aoti_compile_and_package(
                program, package_path=os.path.join(out, name + ".part.pt2"),
                inductor_configs={"cpp.threads": 1, "aot_inductor.package_constants_in_so": name not in EXTERNAL})
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    np.savez(os.path.join(out, name + ".npz"), **{"in%d" % i: t.numpy() for i, t in enumerate(inputs)})
    os.rename(os.path.join(out, name + ".part.pt2"), os.path.join(out, name + ".pt2"))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", required=True)
    p.add_argument("--only", nargs="*", default=["resnet18", "bert", "gpt2", "linears", "named0", "named100"])
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for name in a.only:
        if not os.path.exists(os.path.join(a.out, name + ".pt2")):
            print("making %s" % name, flush=True)
            make(name, a.out)


if __name__ == "__main__":
    main()
