#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the larger packages of `make bench` with torch 2.13.0, with random weights. MODELS are whole models (ResNet-18 at
full width, BERT-base, GPT-2 small, ViT-B/16, MobileNetV2-like, LSTM ...), each for one thread and, as NAME.t2, for two. The
others are for one part of the bench each: four large Linear layers, whose 200 MB of constants are not in the package but in
two sets beside it, linears.a.safetensors and linears.b.safetensors, and calls of a plugin's operator. Each NAME.pt2 has
its inputs beside it as NAME.npz. What is there already stays.

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


class Inverted(nn.Module):
    """MobileNetV2's block: 1x1 up, 3x3 depthwise, 1x1 down."""

    def __init__(self, cin, cout, stride, expand):
        super().__init__()
        mid = cin * expand
        up = [nn.Conv2d(cin, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.ReLU6()] if expand != 1 else []
        self.body = nn.Sequential(*up, nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False), nn.BatchNorm2d(mid),
                                  nn.ReLU6(), nn.Conv2d(mid, cout, 1, bias=False), nn.BatchNorm2d(cout))
        self.add = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.body(x) if self.add else self.body(x)


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        blocks, cin = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()], 32
        for expand, cout, n, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                        (6, 160, 3, 2), (6, 320, 1, 1)):
            for i in range(n):
                blocks.append(Inverted(cin, cout, stride if i == 0 else 1, expand))
                cin = cout
        blocks += [nn.Conv2d(cin, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(1280, 1000)

    def forward(self, x):
        return self.fc(self.blocks(x).mean((2, 3)))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(256, 512, 2, batch_first=True), nn.Linear(512, 128)

    def forward(self, x):
        return self.fc(self.lstm(x)[0])


class First(nn.Module):
    """One tensor out of a transformers model."""

    def __init__(self, model, name="input_ids"):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x):
        return self.model(**{self.name: x}, return_dict=False)[0]


def resnet18():
    return ResNet18(), (torch.randn(1, 3, 224, 224),)


def resnet18_b8():
    return ResNet18(), (torch.randn(8, 3, 224, 224),)


def mobilenet():
    return MobileNet(), (torch.randn(1, 3, 224, 224),)


def lstm():
    return Lstm(), (torch.randn(1, 64, 256),)


def lstm_b8():
    return Lstm(), (torch.randn(8, 64, 256),)


def vit():
    from transformers import ViTConfig, ViTModel
    return First(ViTModel(ViTConfig()), "pixel_values"), (torch.randn(1, 3, 224, 224),)


def bert():
    from transformers import BertConfig, BertModel
    return First(BertModel(BertConfig(use_cache=False))), (torch.randint(0, 30000, (1, 128)),)


def bert_bf16():
    module, inputs = bert()
    return module.to(torch.bfloat16), inputs


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel
    return First(GPT2LMHeadModel(GPT2Config(use_cache=False))), (torch.randint(0, 50000, (1, 64)),)


def linears():
    return nn.Sequential(*[nn.Linear(3584, 3584) for _ in range(4)]), (torch.randn(4, 3584),)


EXTERNAL = {"linears"}
MODELS = ["resnet18", "resnet18_b8", "mobilenet", "vit", "bert", "bert_bf16", "gpt2", "lstm", "lstm_b8"]


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


def large0():
    return Named(0), (torch.randn(4 << 20),)


def large1():
    return Named(1), (torch.randn(4 << 20),)


def save_constants(module, path):
    from safetensors.torch import save_file
    save_file(module.state_dict(), path + ".a.safetensors")
    save_file({k: -v for k, v in module.state_dict().items()}, path + ".b.safetensors")


def make(name, out):
    base, _, threads = name.partition(".t")
    torch.manual_seed(0)
    module, inputs = globals()[base]()
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
                inductor_configs={"cpp.threads": int(threads or 1), "aot_inductor.package_constants_in_so": name not in EXTERNAL})
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    np.savez(os.path.join(out, name + ".npz"), **{"in%d" % i: t.numpy() for i, t in enumerate(inputs)})
    os.rename(os.path.join(out, name + ".part.pt2"), os.path.join(out, name + ".pt2"))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", required=True)
    p.add_argument("--only", nargs="*", default=MODELS + [m + ".t2" for m in MODELS] + ["linears", "named0", "named100", "large0", "large1"])
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for name in a.only:
        if not os.path.exists(os.path.join(a.out, name + ".pt2")):
            print("making %s" % name, flush=True)
            make(name, a.out)


if __name__ == "__main__":
    main()
