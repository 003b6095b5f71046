#!/usr/bin/env python3
"""The peer of `redllm bench step`: a RedLLM's or DecLLM's training step in PyTorch as a good user would write it (q, k, v and
gate, up as one product each, scaled_dot_product_attention, unfactored Adafactor), eager or compiled, the optimizer with it.
Prints one JSON line; rates are medians over the steps, as ours are."""
import argparse
import json
import math
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

Z_LOSS = 1e-4


def rms_norm(x, gain=None):
    y = x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(x.dtype)
    return y if gain is None else y * gain.to(x.dtype)


def rotate(x, table):
    cos, sin = table
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def rotary_table(first, count, head_dim, dtype):
    frequency = 10000.0 ** (-torch.arange(head_dim // 2).double() / (head_dim // 2))
    angle = (first + torch.arange(count)).double()[:, None] * frequency
    return angle.cos().to(dtype), angle.sin().to(dtype)


class Attention(nn.Module):
    """Self-attention, or with `memory` attention to the encoder's output; RedLLMs normalise the output of each head."""

    def __init__(self, width, heads, head_dim, cross, red):
        super().__init__()
        self.heads, self.cross, self.red = heads, cross, red
        self.query = nn.Linear(width, heads * head_dim * (1 if cross else 3), bias=False)
        if cross:
            self.key_value = nn.Linear(width, 2 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, width, bias=False)

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x, memory, query_table, key_table, causal):
        if self.cross:
            q = self.query(x)
            k, v = self.key_value(memory).chunk(2, -1)
        else:
            q, k, v = self.query(x).chunk(3, -1)
        q = rotate(rms_norm(self.split(q)), query_table)
        k = rotate(rms_norm(self.split(k)), key_table)
        o = F.scaled_dot_product_attention(q, k, rms_norm(self.split(v)), is_causal=causal)
        if self.red:
            o = rms_norm(o)
        return self.output(o.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class FeedForward(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, options, cross):
        super().__init__()
        red = options.kind == "red"
        sizes = (options.d_model, options.num_heads, options.head_dim)
        self.norm_self = nn.Parameter(torch.ones(options.d_model))
        self.self_attention = Attention(*sizes, False, red)
        self.cross_attention = Attention(*sizes, True, red) if cross else None
        if cross:
            self.norm_cross = nn.Parameter(torch.ones(options.d_model))
        self.norm_ffn = nn.Parameter(torch.ones(options.d_model))
        self.ffn = FeedForward(options.d_model, options.d_ff)

    def forward(self, x, table, causal, memory=None, memory_table=None):
        h = rms_norm(x, self.norm_self)
        x = x + self.self_attention(h, h, table, table, causal)
        if self.cross_attention is not None:
            x = x + self.cross_attention(rms_norm(x, self.norm_cross), memory, table, memory_table, False)
        return x + self.ffn(rms_norm(x, self.norm_ffn))


class Model(nn.Module):
    def __init__(self, options, inputs, targets, dtype):
        super().__init__()
        self.red, self.dtype, self.width = options.kind == "red", dtype, options.d_model
        self.embedding = nn.Parameter(torch.randn(options.vocab_size, options.d_model))
        self.encoder = nn.ModuleList(Layer(options, False) for _ in range(options.encoder_layers))
        self.decoder = nn.ModuleList(Layer(options, self.red) for _ in range(options.decoder_layers))
        if self.red:
            self.encoder_norm = nn.Parameter(torch.ones(options.d_model))
        self.decoder_norm = nn.Parameter(torch.ones(options.d_model))
        self.encoder_table = rotary_table(0, inputs, options.head_dim, dtype)
        self.decoder_table = rotary_table(inputs, targets, options.head_dim, dtype)

    def tables_to(self, device):
        self.encoder_table = tuple(x.to(device) for x in self.encoder_table)
        self.decoder_table = tuple(x.to(device) for x in self.decoder_table)

    def forward(self, encoder_ids, decoder_ids, targets):
        memory, embedding = None, self.embedding.to(self.dtype)
        if self.red:
            x = F.embedding(encoder_ids, embedding)
            for layer in self.encoder:
                x = layer(x, self.encoder_table, False)
            memory = rms_norm(x, self.encoder_norm)
        y = F.embedding(decoder_ids, embedding)
        for layer in self.decoder:
            y = layer(y, self.decoder_table, True, memory, self.encoder_table)
        logits = (rms_norm(y, self.decoder_norm) @ embedding.t()).float() / math.sqrt(self.width)
        log_z = torch.logsumexp(logits, -1)
        target = logits.gather(-1, targets[..., None])[..., 0]
        return (log_z - target + Z_LOSS * log_z * log_z).mean()


def blend(v, x, decay):
    """v = decay v + (1 - decay) x; a tensor for decay keeps a compiled update from being compiled again each step."""
    if isinstance(decay, float):
        v.mul_(decay).add_(x, alpha=1 - decay)
    else:
        v.lerp_(x, 1 - decay)


@torch.no_grad()
def adafactor(parameters, gradients, seconds, decay, rate):
    """Unfactored, with the clip of the global norm and of each update's RMS."""
    norm = torch.sqrt(sum(g.float().pow(2).sum() for g in gradients))
    scale = torch.clamp(1 / norm, max=1.0)
    for p, gradient, v in zip(parameters, gradients, seconds):
        g = gradient.float() * scale
        blend(v, g * g + 1e-30, decay)
        u = g * v.rsqrt()
        u /= torch.clamp(u.pow(2).mean().sqrt(), min=1.0)
        p.sub_(u * (rate * torch.clamp(p.pow(2).mean().sqrt(), min=1e-3)))


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("red", "dec"), required=True)
    for name, default in (("vocab_size", 32768), ("d_model", 1024), ("d_ff", 4096), ("num_heads", 8), ("head_dim", 128),
                          ("encoder_layers", 0), ("decoder_layers", 8), ("window", 2048), ("batch", 1), ("steps", 4),
                          ("warmup", 2), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--compile", action="store_true", help="the model and the optimizer's update")
    parser.add_argument("--eager-update", action="store_true", help="with --compile: the model alone")
    return parser.parse_args()


def prepare(device):
    """The GPU's own way: fused attention or an error (the default may fall back to the slow one), and nothing left of others."""
    if not torch.cuda.is_available():
        raise SystemExit(f"--device {device}: this PyTorch ({torch.__version__}) sees no GPU")
    torch.cuda.set_device(torch.device(device))
    torch.backends.cuda.enable_math_sdp(False)
    torch.cuda.reset_peak_memory_stats()


def figures_of_device(options):
    if options.device == "cpu":
        return {}
    return {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            "peak_device_mib": torch.cuda.max_memory_allocated() / 2**20}


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    on_gpu = options.device != "cpu"
    if on_gpu:
        prepare(options.device)
    torch.manual_seed(0)
    dtype = torch.float32 if options.dtype == "fp32" else torch.bfloat16
    inputs = options.window // 2 if options.kind == "red" else 0
    count = options.window - inputs
    model = Model(options, inputs, count, dtype).to(options.device)
    model.tables_to(options.device)
    forward = torch.compile(model) if options.compile else model
    compiled_update = options.compile and not options.eager_update
    update = torch.compile(adafactor) if compiled_update else adafactor
    parameters = list(model.parameters())
    seconds = [torch.zeros_like(p) for p in parameters]

    def tokens(length):
        return torch.randint(0, options.vocab_size, (options.batch, max(length, 1)), device=options.device)

    synchronize = torch.cuda.synchronize if on_gpu else lambda: None
    times = []
    for step in range(1, options.warmup + options.steps + 1):
        batch = tokens(inputs), tokens(count), tokens(count)
        synchronize()
        begin = time.perf_counter()
        with torch.autocast(options.device.split(":")[0], dtype=dtype, enabled=dtype != torch.float32):
            loss = forward(*batch)
        loss.backward()
        decay = 1 - step**-0.8
        if on_gpu or compiled_update:
            decay = torch.tensor(decay, device=options.device)
        update(parameters, [p.grad for p in parameters], seconds, decay, 0.001)
        for p in parameters:
            p.grad = None
        loss.item()
        synchronize()
        times.append(time.perf_counter() - begin)
    warmup, times = times[:options.warmup], times[options.warmup:]
    print(json.dumps({
        "program": f"PyTorch {torch.__version__}", "compiled": options.compile, "compiled_update": compiled_update,
        "dtype": options.dtype, "parameters": sum(p.numel() for p in parameters), "step_s": round(statistics.median(times), 4),
        "tokens_per_s": round(statistics.median(options.batch * options.window / step_s for step_s in times), 2),
        "warmup_s": round(sum(warmup), 1), "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": round(loss.item(), 4),
        **figures_of_device(options)}))


if __name__ == "__main__":
    main()
