"""NVIDIA's Predict2 and Transfer2.5 networks on a CPU: their own source, with stand-ins for what it imports beside torch.

The kernels of Transformer Engine (RMSNorm, rotation by halves, attention) are written here in plain torch from
their definitions; context parallelism is absent, as in one process; logging, configs and checkpoint policies,
which compute nothing, are empty. Everything else of the forward pass is NVIDIA's code.
"""

import enum
import sys
import types

import torch
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(dim))

    def reset_parameters(self):
        nn.init.ones_(self.weight)

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def apply_rotary_pos_emb(x, freqs, tensor_format, fused):
    """x: [B, L, heads, d], freqs: [L, 1, 1, d]"""
    assert tensor_format == "bshd"
    angle = freqs[:, 0].to(x.dtype)
    a, b = x.chunk(2, -1)
    return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()


class DotProductAttention(nn.Module):
    def __init__(self, heads, head_dim, **settings):
        super().__init__()
        assert settings["qkv_format"] == "bshd" and settings["attn_mask_type"] == "no_mask"

    def forward(self, q, k, v):
        mixed = nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
        return mixed.transpose(1, 2).flatten(2)

    def set_context_parallel_group(self, *args, **kwargs):
        pass


class DataType(enum.Enum):
    IMAGE = "image"
    VIDEO = "video"
    MIX = "mix"


class Anything(types.ModuleType):
    """A module all of whose names do nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def install_stand_ins(transfer_source: str = "") -> None:
    """transfer_source: a checkout of cosmos-transfer2.5, whose package itself wants CUDA."""

    def module(name, **members):
        made = types.ModuleType(name)
        made.__dict__.update(members)
        made.__path__ = []
        sys.modules[name] = made
        parent, _, leaf = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], leaf, made)
        return made

    def no_group(*args, **kwargs):
        raise RuntimeError("one process")

    unused = type("Unused", (nn.Module,), {})
    module("transformer_engine")
    module("transformer_engine.pytorch", RMSNorm=RMSNorm)
    module("transformer_engine.pytorch.attention", DotProductAttention=DotProductAttention,
           apply_rotary_pos_emb=apply_rotary_pos_emb)
    module("transformer_engine.pytorch.attention.rope", apply_rotary_pos_emb=apply_rotary_pos_emb)
    module("megatron")
    module("megatron.core")
    module("megatron.core.parallel_state", get_context_parallel_group=lambda: None, is_initialized=lambda: False)
    torch.distributed.get_process_group_ranks = lambda group: [0]  # one process
    module("imaginaire")
    module("imaginaire.auxiliary")
    module("imaginaire.auxiliary.text_encoder",
           CosmosTextEncoderConfig=type("Config", (), dict(EMBED_DIM=1024, NUM_TOKENS=512)))
    utils = module("imaginaire.utils")
    utils.log = Anything("imaginaire.utils.log")
    module("imaginaire.utils.graph", create_cuda_graph=None)
    # Of the repository itself: what its networks import and, here, never run.
    module("cosmos_predict2.conditioner", DataType=DataType)
    module("cosmos_predict2.module.a2a_cp", MinimalA2AAttnOp=unused, NattenA2AAttnOp=unused)
    module("cosmos_predict2.module.neighborhood_attn", NeighborhoodAttention=unused)
    module("cosmos_predict2.networks.model_weights_stats", WeightTrainingStat=nn.Module)
    module("cosmos_predict2.utils.context_parallel", split_inputs_cp=no_group)
    # The same of cosmos-transfer2.5, which holds newer copies.
    source = "cosmos_transfer2._src."
    module("cosmos_transfer2").__path__ = [f"{transfer_source}/cosmos_transfer2"]
    module(source + "imaginaire.attention", attention=None)
    module(source + "imaginaire.utils", log=Anything("log"))
    module(source + "imaginaire.utils.graph", create_cuda_graph=None)
    module(source + "imaginaire.utils.context_parallel", split_inputs_cp=no_group)
    module(source + "predict2.conditioner", DataType=DataType)
    module(source + "predict2.modules.neighborhood_attn", NeighborhoodAttention=unused)
    module(source + "predict2.networks.a2a_cp", MinimalA2AAttnOp=unused, NattenA2AAttnOp=unused)
    module(source + "predict2.networks.model_weights_stats", WeightTrainingStat=nn.Module)
    module(source + "predict2.utils.kv_cache", AttentionOpWithKVCache=unused, KVCacheConfig=unused)


class SequenceFirstAttention(nn.Module):
    """[L, B, heads, d] -> [L, B, heads d], as Transformer Engine's with qkv_format "sbhd"."""

    def __init__(self, heads, head_dim, **settings):
        super().__init__()
        self.settings = settings

    def forward(self, q, k, v, **bias):
        assert self.settings["qkv_format"] == "sbhd" and self.settings["attn_mask_type"] == "no_mask"
        assert all(value in (None, "no_bias") for value in bias.values())
        mixed = nn.functional.scaled_dot_product_attention(*(x.permute(1, 2, 0, 3) for x in (q, k, v)))
        return mixed.permute(2, 0, 1, 3).flatten(2)


def rotate_sequence_first(x, freqs, tensor_format, fused):
    """x: [L, B, heads, d], freqs: [L, 1, 1, d]"""
    assert tensor_format == "sbhd"
    angle = freqs.to(x.dtype)
    a, b = x.chunk(2, -1)
    return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()


def install_transfer1_stand_ins(source: str) -> None:
    """source: a checkout of cosmos-transfer1, whose networks are then imported with what they need."""
    sys.path.insert(0, source)

    def module(name, **members):
        made = types.ModuleType(name)
        made.__dict__.update(members)
        made.__path__ = []
        sys.modules[name] = made

    module("transformer_engine", pytorch=types.SimpleNamespace(RMSNorm=RMSNorm))
    module("transformer_engine.pytorch")
    module("transformer_engine.pytorch.attention", DotProductAttention=SequenceFirstAttention,
           apply_rotary_pos_emb=rotate_sequence_first)
    one_process = types.SimpleNamespace(is_initialized=lambda: False)
    module("megatron")
    module("megatron.core", parallel_state=one_process)
    module("cosmos_transfer1.utils", log=Anything("log"))
    module("cosmos_transfer1.diffusion.conditioner", DataType=DataType)
    module("cosmos_transfer1.diffusion.module.parallel", split_inputs_cp=None, cat_outputs_cp=None)
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # constants are made on the CPU
