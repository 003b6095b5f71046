"""Layers that RedLLM and DecLLM share.

Shapes: B batch, T queries, S keys, h heads, k head width, d model width, f FFN width. Norms, their statistics, rotary
positions and softmax are fp32 whatever the model's dtype is; each result is rounded once.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer


def normalise(x, epsilon):
    """x / RMS(x) over the last dim; fp32."""
    wide = x.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)


class RedLLMRMSNorm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(config.d_model))
        self.epsilon = config.norm_epsilon

    def forward(self, x):
        return (normalise(x, self.epsilon) * self.gain.float()).to(x.dtype)


def rotary_angles(positions, config):
    """cos and sin (B, 1, T, k / 2), fp32, of positions (B, T); the angles themselves are fp64."""
    half = config.head_dim // 2
    where = positions.cpu() if positions.device.type == "mps" else positions  # it has no fp64
    exponents = torch.arange(half, dtype=torch.float64, device=where.device) / half
    angles = where.to(torch.float64)[:, None, :, None] * config.rope_base**-exponents
    return angles.cos().float().to(positions.device), angles.sin().float().to(positions.device)


def rotate(x, angles):
    """Rotary positions on (B, h, T, k): element i turns with element i + k / 2."""
    cosine, sine = angles
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, a * sine + b * cosine), dim=-1)


class Visibility:
    """Which keys a query sees: mask (B or 1, 1, T, S), True where it does; None: all, or with `causal` those up to it.
    A query that sees none gets 0."""

    def __init__(self, mask=None, causal=False):
        self.causal = causal
        self.mask = self.sees_any = None
        if mask is not None:
            self.sees_any = mask.any(-1, keepdim=True)
            self.mask = mask | ~self.sees_any  # softmax over nothing is NaN

    def as_mask(self, num_queries, num_keys, device):
        if self.mask is None and self.causal:
            return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril()
        return self.mask


def padding_visibility(padding):
    """Of all keys but padding; padding (B, S) bool or None."""
    return Visibility() if padding is None else Visibility(padding[:, None, None, :])


def causal_visibility(num_queries, num_keys, padding, device, index=None, prefix_lengths=None):
    """The queries are the last `num_queries` of the keys. With prefix_lengths (B), tokens whose index (B, S) is below
    see each other."""
    if padding is None and prefix_lengths is None and (num_queries == num_keys or num_queries == 1):
        return Visibility(causal=num_queries > 1)
    columns = torch.arange(num_keys, device=device)
    rows = columns[num_keys - num_queries :]
    mask = (columns[None, :] <= rows[:, None])[None, None]
    if prefix_lengths is not None:
        inside = index < prefix_lengths[:, None]
        mask = mask | (inside[:, num_keys - num_queries :, None] & inside[:, None, :])[:, None]
    if padding is not None:
        mask = mask & padding[:, None, None, :]
    return Visibility(mask)


class RedLLMAttention(nn.Module):
    """Norm of queries, keys and values per head, rotary positions on queries and keys. `output_norm`: none, head,
    concat or after_wo."""

    def __init__(self, config, layer, cross, output_norm):
        super().__init__()
        width = config.num_heads * config.head_dim
        self.config, self.layer, self.cross, self.output_norm = config, layer, cross, output_norm
        self.query = nn.Linear(config.d_model, width, bias=False)
        self.key = nn.Linear(config.d_model, width, bias=False)
        self.value = nn.Linear(config.d_model, width, bias=False)
        self.output = nn.Linear(width, config.d_model, bias=False)

    def heads(self, x):
        """(B, T, h k) to (B, h, T, k), normalised; fp32."""
        split = x.unflatten(-1, (self.config.num_heads, self.config.head_dim)).transpose(1, 2)
        return normalise(split, self.config.norm_epsilon)

    def keys_and_values(self, memory, angles, past_key_values):
        cache = past_key_values
        if isinstance(past_key_values, EncoderDecoderCache):
            cache = past_key_values.cross_attention_cache if self.cross else past_key_values.self_attention_cache
            if self.cross and past_key_values.is_updated.get(self.layer):
                return cache.layers[self.layer].keys, cache.layers[self.layer].values
        keys = rotate(self.heads(self.key(memory)), angles).to(memory.dtype)
        values = self.heads(self.value(memory)).to(memory.dtype)
        if cache is not None:
            keys, values = cache.update(keys, values, self.layer)
            if self.cross:
                past_key_values.is_updated[self.layer] = True
        return keys, values

    def forward(self, x, memory, visible, angles, memory_angles, past_key_values=None, output_attentions=False):
        """x (B, T, d), memory (B, S, d): (B, T, d), and with output_attentions the probabilities (B, h, T, S)."""
        queries = rotate(self.heads(self.query(x)), angles).to(x.dtype)
        keys, values = self.keys_and_values(memory, memory_angles, past_key_values)
        weights = None
        if output_attentions or self.config._attn_implementation == "eager":
            out, weights = self.explain(queries, keys, values, visible)
        else:
            out = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=visible.mask, is_causal=visible.mask is None and visible.causal
            )
        if visible.sees_any is not None:
            out = out.masked_fill(~visible.sees_any, 0.0)
        if self.output_norm == "head":
            out = normalise(out, self.config.norm_epsilon).to(x.dtype)
        out = out.transpose(1, 2).flatten(2)
        if self.output_norm == "concat":
            out = normalise(out, self.config.norm_epsilon).to(x.dtype)
        out = self.output(out)
        if self.output_norm == "after_wo":
            out = normalise(out, self.config.norm_epsilon).to(x.dtype)
        return out, weights if output_attentions else None

    def explain(self, queries, keys, values, visible):
        scores = (queries @ keys.transpose(-1, -2)).float() / math.sqrt(self.config.head_dim)
        mask = visible.as_mask(scores.shape[-2], scores.shape[-1], scores.device)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(-1)
        out = weights.to(values.dtype) @ values
        if visible.sees_any is not None:
            weights = weights.masked_fill(~visible.sees_any, 0.0)
        return out, weights


class RedLLMFeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class RedLLMLayer(GradientCheckpointingLayer):
    """x + self-attention, in a decoder with an encoder + cross-attention, + feed-forward, each behind its own norm."""

    def __init__(self, config, index, cross=False):
        super().__init__()
        norm = config.attention_output_norm
        self.self_attention_norm = RedLLMRMSNorm(config)
        self.self_attention = RedLLMAttention(config, index, False, norm)
        if cross:
            self.cross_attention_norm = RedLLMRMSNorm(config)
            self.cross_attention = RedLLMAttention(config, index, True, norm)
        self.ffn_norm = RedLLMRMSNorm(config)
        self.ffn = RedLLMFeedForward(config)
        self.cross = cross

    def forward(self, x, visible, angles, memory=None, memory_visible=None, memory_angles=None, past_key_values=None,
                output_attentions=False):
        normed = self.self_attention_norm(x)
        branch, weights = self.self_attention(
            normed, normed, visible, angles, angles, past_key_values, output_attentions
        )
        x = x + branch
        cross_weights = None
        if self.cross:
            branch, cross_weights = self.cross_attention(
                self.cross_attention_norm(x), memory, memory_visible, angles, memory_angles, past_key_values,
                output_attentions,
            )
            x = x + branch
        return x + self.ffn(self.ffn_norm(x)), weights, cross_weights


class RedLLMStack(nn.Module):
    """Layers and the norm behind them."""

    def __init__(self, config, num_layers, cross=False):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(RedLLMLayer(config, i, cross) for i in range(num_layers))
        self.final_norm = RedLLMRMSNorm(config)

    def run(self, x, visible, angles, memory=None, memory_visible=None, memory_angles=None, past_key_values=None,
            output_attentions=False, output_hidden_states=False):
        """The stack's result, and where asked for tuples of what is between layers and of attention's weights."""
        states, weights, cross_weights = (x,), (), ()
        for layer in self.layers:
            x, own, cross = layer(
                x, visible, angles, memory, memory_visible, memory_angles, past_key_values=past_key_values,
                output_attentions=output_attentions,
            )
            states, weights, cross_weights = states + (x,), weights + (own,), cross_weights + (cross,)
            if not output_hidden_states:
                states = ()
        x = self.final_norm(x)
        return (
            x,
            states[:-1] + (x,) if output_hidden_states else None,
            weights if output_attentions else None,
            cross_weights if output_attentions and memory is not None else None,
        )
