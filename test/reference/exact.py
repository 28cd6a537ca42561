"""diffusers' DiT in float64 throughout.

RMSNorm and the rotary embedding of the public class compute in float32 whatever the model has, so in
float64 its losses carry 1e-8 of float32's rounding. install() replaces both by the same formulas in the
input's dtype; nothing else changes.
"""

import torch
from diffusers.models import normalization
from diffusers.models.transformers import transformer_cosmos


def rms_norm(self, hidden_states):
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    hidden_states = hidden_states * torch.rsqrt(variance + self.eps)
    return hidden_states if self.weight is None else hidden_states * self.weight


def rotary(x, freqs_cis, use_real=True, use_real_unbind_dim=-2, **ignored):
    assert use_real and use_real_unbind_dim == -2
    cos, sin = (table.to(x.dtype)[None, None] for table in freqs_cis)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def install():
    normalization.RMSNorm.forward = rms_norm
    import diffusers.models.embeddings as embeddings
    embeddings.apply_rotary_emb = rotary
    if hasattr(transformer_cosmos, "apply_rotary_emb"):
        transformer_cosmos.apply_rotary_emb = rotary
