#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small models of many architectures, compiled by AOTInductor, run confined on the native runtime, against eager PyTorch.

usage: zoo.py [BUILD] [-k NAME] [--seconds N] [--keep DIR]

Compiling takes most of the time: after --seconds (default PT2BOX_ZOO_SECONDS, or 900) no further model is begun, and those that were
left out are named. The order changes from day to day, so that all have their turn.
"""
import argparse
import datetime
import os
import random
import sys
import tempfile
import time
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "python"))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

warnings.simplefilter("ignore")
MODELS = {}


def model(f):
    MODELS[f.__name__] = f
    return f


class Fn(nn.Module):
    def __init__(self, f, **parts):
        super().__init__()
        self.f = f
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args):
        return self.f(self, *args)


def tokens(*shape):
    return torch.randint(1, 90, shape)


def hf(cls, config, *inputs, pick="last_hidden_state", **names):
    """A model of transformers without its cache; inputs by position, or by @names."""
    import transformers
    m = getattr(transformers, cls)(config).eval()

    def call(self, *args):
        out = self.m(**dict(zip(names, args)), return_dict=True) if names else self.m(*args, return_dict=True)
        return out[pick] if isinstance(pick, str) else tuple(out[p] for p in pick)
    return Fn(call, m=m), tuple(names.values()) if names else inputs


def config(name, **options):
    import transformers
    return getattr(transformers, name)(**{"use_cache": False, **options})


SMALL = dict(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)


@model
def llama():
    return hf("LlamaForCausalLM", config("LlamaConfig", **SMALL, num_key_value_heads=2), pick="logits", input_ids=tokens(2, 9))


@model
def mixtral():
    return hf("MixtralForCausalLM", config("MixtralConfig", **SMALL, num_key_value_heads=2, num_local_experts=4), pick="logits",
              input_ids=tokens(2, 7))


@model
def mamba():
    return hf("MambaForCausalLM", config("MambaConfig", vocab_size=97, hidden_size=32, state_size=4, num_hidden_layers=2,
                                         time_step_rank=4), pick="logits", input_ids=tokens(2, 6))


@model
def t5():
    return hf("T5ForConditionalGeneration", config("T5Config", vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2,
                                                   num_heads=4), pick="logits", input_ids=tokens(2, 9),
              decoder_input_ids=tokens(2, 5))


@model
def whisper():
    return hf("WhisperForConditionalGeneration",
              config("WhisperConfig", vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                     decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8, max_source_positions=10,
                     max_target_positions=12, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1),
              pick="logits", input_features=torch.randn(2, 8, 20), decoder_input_ids=tokens(2, 5))


@model
def swin():
    return hf("SwinModel", config("SwinConfig", image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2],
                                  window_size=4), pixel_values=torch.randn(1, 3, 32, 32))


@model
def convnext():
    return hf("ConvNextModel", config("ConvNextConfig", num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], image_size=32),
              pixel_values=torch.randn(1, 3, 32, 32))


@model
def deberta():
    return hf("DebertaV2Model", config("DebertaV2Config", **SMALL, relative_attention=True, position_buckets=8,
                                       pos_att_type=["p2c", "c2p"]), input_ids=tokens(2, 11),
              attention_mask=torch.ones(2, 11, dtype=torch.int64))


@model
def clip():
    import transformers
    text = dict(SMALL, max_position_embeddings=16, eos_token_id=2)
    vision = {k: v for k, v in SMALL.items() if k != "vocab_size"} | dict(image_size=16, patch_size=8)
    c = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return hf("CLIPModel", c, pick=("logits_per_image", "text_embeds"), input_ids=tokens(2, 7),
              pixel_values=torch.randn(2, 3, 16, 16))


@model
def vit_int8():
    """Weights in 8 bits by channel, as weight-only quantisation has them."""
    class Linear8(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            self.register_buffer("w", torch.randint(-128, 127, (o, i), dtype=torch.int8))
            self.register_buffer("s", torch.rand(o, dtype=torch.bfloat16) * 0.01)

        def forward(self, x):
            return torch.ops.aten._weight_int8pack_mm(x.flatten(0, -2), self.w, self.s).unflatten(0, x.shape[:-1])

    def f(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    return Fn(f, qkv=Linear8(64, 192), out=Linear8(64, 64)), (torch.randn(2, 9, 64, dtype=torch.bfloat16),)


@model
def unet():
    def f(self, x):
        a = F.relu(self.a(x))
        b = F.relu(self.b(F.max_pool2d(a, 2)))
        u = F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        return self.c(torch.cat([a, self.up(b), u], 1)).sigmoid()
    return Fn(f, a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Conv2d(8, 16, 3, padding=1), up=nn.ConvTranspose2d(16, 8, 2, 2),
              c=nn.Conv2d(32, 2, 1)), (torch.randn(1, 3, 24, 24),)


@model
def gru():
    def f(self, x):
        y, h = self.g(x)
        return y, h
    return Fn(f, g=nn.GRU(12, 16, 2, batch_first=True, bidirectional=True)), (torch.randn(3, 7, 12),)


@model
def bags():
    def f(self, ids, offsets, weights):
        return torch.cat([self.s(ids, offsets, weights), self.m(ids, offsets), self.x(ids, offsets)], 1)
    return Fn(f, s=nn.EmbeddingBag(50, 8, mode="sum"), m=nn.EmbeddingBag(50, 8, mode="mean"),
              x=nn.EmbeddingBag(50, 8, mode="max")), (
        torch.randint(0, 50, (20,)), torch.tensor([0, 4, 4, 11]), torch.rand(20))


@model
def spectral():
    def f(self, x):
        s = torch.stft(x, 32, 8, window=self.w, return_complex=True)
        mel = (s.abs() ** 2).transpose(1, 2) @ self.mel
        back = torch.istft(s, 32, 8, window=self.w, length=x.shape[-1])
        y = torch.fft.irfft2(torch.fft.rfft2(x.reshape(2, 16, -1)) * 0.5)
        return (mel + 1e-6).log(), back, y
    m = Fn(f)
    m.register_buffer("w", torch.hann_window(32))
    m.register_buffer("mel", torch.rand(17, 6))
    return m, (torch.randn(2, 320),)


@model
def detection():
    """Boxes of a grid, the best by score, and suppression by overlap without a loop that data decides."""
    def f(self, x):
        y = self.c(x).flatten(2).transpose(1, 2)
        score, at = y[..., 0].sigmoid().topk(12, dim=1)
        box = y[..., 1:].gather(1, at.unsqueeze(-1).expand(-1, -1, 4))
        lo, hi = box[..., :2].sigmoid(), box[..., :2].sigmoid() + box[..., 2:].exp().clamp(max=2)
        area = (hi - lo).prod(-1)
        inter = (torch.minimum(hi.unsqueeze(2), hi.unsqueeze(1)) - torch.maximum(lo.unsqueeze(2), lo.unsqueeze(1))).clamp(min=0).prod(-1)
        iou = inter / (area.unsqueeze(2) + area.unsqueeze(1) - inter)
        keep = (iou.triu(1).amax(1) < 0.5)
        order = torch.where(keep, score, -1.0).argsort(dim=1, descending=True, stable=True)
        return score.gather(1, order), torch.cat([lo, hi], -1), keep.sum(1), iou
    return Fn(f, c=nn.Conv2d(3, 5, 3, padding=1)), (torch.randn(2, 3, 9, 9),)


@model
def roi_align():
    """Regions of a feature map by grid_sample; pyramid by antialiased resizing."""
    def f(self, x, boxes):
        theta = torch.zeros(boxes.shape[0], 2, 3)
        theta = theta + torch.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 1]], 1)[
            :, [0, 0, 1, 2, 2, 3]].reshape(-1, 2, 3) * self.mask
        grid = F.affine_grid(theta, [boxes.shape[0], 4, 5, 5], align_corners=False)
        regions = F.grid_sample(self.c(x).expand(boxes.shape[0], -1, -1, -1), grid, align_corners=False)
        small = F.interpolate(x, size=(7, 5), mode="bilinear", antialias=True)
        return regions.flatten(1), small
    m = Fn(f, c=nn.Conv2d(3, 4, 3, padding=1))
    m.register_buffer("mask", torch.tensor([[1.0, 0, 1], [0, 1, 1]]))
    return m, (torch.randn(1, 3, 16, 16), torch.rand(3, 4))


@model
def volumes():
    def f(self, x):
        y = F.leaky_relu(self.n(self.a(x)))
        y = F.avg_pool3d(F.max_pool3d(y, 2), (1, 2, 2))
        return self.up(y), F.adaptive_avg_pool3d(y, (1, 2, 2)), F.pad(x, (1, 1, 1, 1, 1, 1), mode="replicate")
    return Fn(f, a=nn.Conv3d(2, 6, 3, padding=1, groups=2), n=nn.GroupNorm(3, 6),
              up=nn.ConvTranspose3d(6, 2, 2, 2)), (torch.randn(1, 2, 8, 8, 8),)


@model
def beam_search():
    """What decoders do with scores: sorting, sampling without a generator, positions, counts."""
    def f(self, logits, ids):
        p = logits.log_softmax(-1)
        values, order = p.sort(dim=-1, descending=True, stable=True)
        cut = torch.where(values.exp().cumsum(-1) > 0.9, -torch.inf, values)
        kept = torch.full_like(p, -torch.inf).scatter(-1, order, cut)
        seen = torch.zeros_like(p).scatter_add(-1, ids, torch.ones_like(ids, dtype=p.dtype))
        best, where = (kept - 0.1 * seen).flatten(1).topk(3)
        return best, where // p.shape[-1], torch.bucketize(best, self.edges), torch.searchsorted(self.edges, best), \
            p.kthvalue(2, -1)[0], p.median(-1)[1], p.cummax(-1)[0]
    m = Fn(f)
    m.register_buffer("edges", torch.linspace(-9, 0, 12))
    return m, (torch.randn(2, 4, 33), torch.randint(0, 33, (2, 4, 6)))


@model
def gaussian_process():
    """Linear algebra: Cholesky, solving, determinants, least squares."""
    def f(self, x, y):
        k = torch.exp(-torch.cdist(x, x)) + 0.1 * torch.eye(x.shape[0])
        low = torch.linalg.cholesky(k)
        alpha = torch.cholesky_solve(y, low)
        sign, logdet = torch.linalg.slogdet(k)
        q, r = torch.linalg.qr(x)
        return alpha, torch.linalg.solve(k, y), logdet * sign, torch.linalg.inv(k), torch.linalg.solve_triangular(
            low, y, upper=False), (q @ r), torch.linalg.eigvalsh(k)
    return Fn(f), (torch.randn(9, 3), torch.randn(9, 2))


@model
def graph():
    """Messages along the edges of a graph."""
    def f(self, x, edges):
        src, dst = edges
        m = F.gelu(self.a(torch.cat([x[src], x[dst]], -1)))
        mean = torch.zeros(x.shape[0], m.shape[1]).index_add(0, dst, m)
        high = torch.full((x.shape[0], m.shape[1]), -9.0).scatter_reduce(0, dst.unsqueeze(1).expand_as(m), m, "amax")
        return self.b(torch.cat([mean, high], -1)), torch.zeros(x.shape[0]).index_put((dst,), m[:, 0], accumulate=True)
    return Fn(f, a=nn.Linear(16, 12), b=nn.Linear(24, 5)), (torch.randn(7, 8), torch.randint(0, 7, (2, 20)))


@model
def bert_bf16():
    m, inputs = hf("BertModel", config("BertConfig", **SMALL, max_position_embeddings=16), input_ids=tokens(2, 8))
    return m.to(torch.bfloat16), inputs


@model
def convs_half():
    def f(self, x):
        return self.b(F.silu(self.a(x))).mean((2, 3)) @ self.w
    m = Fn(f, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 8, 3, groups=8))
    m.w = nn.Parameter(torch.randn(8, 4))
    return m.half(), (torch.randn(1, 3, 12, 12, dtype=torch.float16),)


def flat(x):
    return [x] if isinstance(x, torch.Tensor) else [t for y in x for t in flat(y)]


def close(got, want):
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"output {i}: {a.dtype} {tuple(a.shape)}, not {b.dtype} {tuple(b.shape)}"
        tol = {torch.bfloat16: 6e-2, torch.float16: 1e-2}.get(b.dtype, 2e-4 if b.is_floating_point() or b.is_complex() else 0)
        if not torch.allclose(a, b, rtol=tol, atol=tol, equal_nan=True):
            return f"output {i} differs by up to {(a.double() - b.double()).abs().max():.3g} ({b.double().abs().max():.3g})"
    return ""


def check(name, folder):
    import pt2box
    torch.manual_seed(813)
    m, inputs = MODELS[name]()
    m = m.eval()
    path = os.path.join(folder, name + ".pt2")
    with torch.no_grad():
        want = flat(m(*inputs))
        if not os.path.exists(path):
            exported = torch.export.export(m, inputs, strict=False)
            torch._inductor.aoti_compile_and_package(exported, package_path=path, inductor_configs={"cpp.threads": 1})
    with pt2box.load(path, outputs="torch", backend="native", explain=True) as loaded:
        for _ in range(2):
            why = close(loaded.run([x.clone() for x in inputs]), want)
            if why:
                return why
    return ""


def main():
    a = argparse.ArgumentParser()
    a.add_argument("build", nargs="?", default="build")
    a.add_argument("-k", default="")
    a.add_argument("--seconds", type=float, default=float(os.environ.get("PT2BOX_ZOO_SECONDS", 900)))
    a.add_argument("--keep", help="a folder for the packages; those that are there are not compiled again")
    a = a.parse_args()
    os.environ["B"] = os.path.abspath(a.build)
    import harness  # noqa: F401  finds the package that was built
    names = [n for n in MODELS if any(k in n for k in a.k.split(","))]
    random.Random(datetime.date.today().toordinal()).shuffle(names)
    begun, bad, left = time.monotonic(), 0, []
    with tempfile.TemporaryDirectory() as d:
        for name in names:
            if time.monotonic() - begun > a.seconds:
                left.append(name)
                continue
            start = time.monotonic()
            try:
                why = check(name, a.keep or d)
            except Exception as e:  # what one model makes of it is no reason to leave out the others
                why = f"{type(e).__name__}: {str(e).strip().splitlines()[0][:300]}"
            bad += bool(why)
            print(f"{'WRONG' if why else 'ok   '} {name} ({time.monotonic() - start:.0f} s) {why}", flush=True)
    print(f"{len(names) - len(left)} models, {bad} wrong; no time for: {' '.join(left) or 'none'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
