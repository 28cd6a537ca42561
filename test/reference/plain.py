"""Classes that diffusers lacks, written plainly from the formulas: nothing here but torch.nn.Linear.

Names and config keys are ours (modules/transfer/transfer1.h, modules/dit/action_transformer.h,
modules/dit/multiview_transformer.h); each class saves itself as cosmos-forward reads it.
"""

import json
import math
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn


def rms(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def layer_norm(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-6)


class Scale(nn.Module):
    """A norm's weight."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))


class Attention(nn.Module):
    def __init__(self, dim, context, heads, head_dim):
        super().__init__()
        inner = heads * head_dim
        self.head_dim = head_dim
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(context, inner, bias=False)
        self.to_v = nn.Linear(context, inner, bias=False)
        self.norm_q, self.norm_k = Scale(head_dim), Scale(head_dim)
        self.to_out = nn.ModuleList([nn.Linear(inner, dim, bias=False)])

    def forward(self, x, context, angles=None):
        heads = lambda y: y.unflatten(-1, (-1, self.head_dim))
        q = rms(heads(self.to_q(x)), self.norm_q.weight, 1e-5)
        k = rms(heads(self.to_k(context)), self.norm_k.weight, 1e-5)
        v = heads(self.to_v(context))
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        scores = torch.einsum("blhd,bshd->bhls", q, k) / math.sqrt(self.head_dim)
        mixed = torch.einsum("bhls,bshd->blhd", scores.softmax(-1), v)
        return self.to_out[0](mixed.flatten(2))


def rotate(x, angles):
    """Number i of a head with number i + d/2.  x: [B, L, heads, d], angles: [L, d/2]"""
    a, b = x.chunk(2, -1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def rope_angles(config, grid, fps, dtype):
    d = config["attention_head_dim"]
    spatial = d // 6 * 2
    parts = []
    for axis, width in enumerate([d - 2 * spatial, spatial, spatial]):
        theta = 10000.0 * config["rope_scale"][axis] ** (width / (width - 2))
        frequency = theta ** (-torch.arange(0, width, 2, dtype=dtype) / width)
        position = torch.arange(grid[axis], dtype=dtype)
        if axis == 0 and fps is not None:
            position = position / fps * 24
        shape = [1, 1, 1, -1]
        shape[axis] = grid[axis]
        parts.append((position[:, None] * frequency).reshape(shape).expand(*grid, -1))
    return torch.cat(parts, -1).reshape(math.prod(grid), -1)


class Modulation(nn.Module):
    def __init__(self, dim, rank, parts):
        super().__init__()
        self.linear_1 = nn.Linear(dim, rank, bias=False)
        self.linear_2 = nn.Linear(rank, parts * dim, bias=False)
        self.parts = parts

    def forward(self, emb, temb):
        m = self.linear_2(self.linear_1(emb * torch.sigmoid(emb)))
        return (m + temb[..., : m.shape[-1]]).chunk(self.parts, -1)


class Feed(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        up = nn.Module()
        up.proj = nn.Linear(dim, inner, bias=False)
        self.net = nn.ModuleDict({"0": up, "2": nn.Linear(inner, dim, bias=False)})

    def forward(self, x):
        h = self.net["0"].proj(x)
        return self.net["2"](h * 0.5 * (1 + torch.erf(h / math.sqrt(2))))


class Block(nn.Module):
    def __init__(self, c, dim):
        super().__init__()
        heads, head_dim = c["num_attention_heads"], c["attention_head_dim"]
        self.norm1, self.norm2, self.norm3 = (Modulation(dim, c["adaln_lora_dim"], 3) for _ in range(3))
        self.attn1 = Attention(dim, dim, heads, head_dim)
        self.attn2 = Attention(dim, c["text_embed_dim"], heads, head_dim)
        self.ff = Feed(dim, int(dim * c["mlp_ratio"]))

    def forward(self, x, emb, temb, text, angles, positions):
        if positions is not None:
            x = x + positions
        for norm, f in [(self.norm1, lambda h: self.attn1(h, h, angles)),
                        (self.norm2, lambda h: self.attn2(h, text)), (self.norm3, self.ff)]:
            shift, scale, gate = norm(emb, temb)
            x = x + gate * f(layer_norm(x) * (1 + scale) + shift)
        return x


class TimeEmbed(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.t_embedder = nn.ModuleDict({"linear_1": nn.Linear(dim, dim, bias=False),
                                         "linear_2": nn.Linear(dim, 3 * dim, bias=False)})
        self.norm = Scale(dim)

    def forward(self, s, more_emb=0, more_temb=0):
        h = self.t_embedder["linear_1"](s)
        temb = self.t_embedder["linear_2"](h * torch.sigmoid(h)) + more_temb
        return rms(s + more_emb, self.norm.weight, 1e-6), temb


class Positions(nn.Module):
    def __init__(self, c, dim):
        super().__init__()
        for name, axis in zip("thw", range(3)):
            size = c["max_size"][axis] // c["patch_size"][axis]
            setattr(self, f"pos_emb_{name}", nn.Parameter(torch.zeros(size, dim)))

    def forward(self, grid):
        e = (self.pos_emb_t[: grid[0], None, None] + self.pos_emb_h[: grid[1], None]
             + self.pos_emb_w[: grid[2]]).reshape(1, math.prod(grid), -1)
        norm = torch.sqrt((e * e).sum(-1, keepdim=True)) / math.sqrt(e.shape[-1])
        return e / (norm + 1e-6)


class Patches(nn.Module):
    def __init__(self, channels, patch, dim):
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(channels * math.prod(patch), dim, bias=False)

    def forward(self, x):
        for axis, size in zip((2, 4, 6), self.patch):
            x = x.unflatten(axis, (-1, size))
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7)  # [B, t, h, w, C, pt, ph, pw]
        return self.proj(x.flatten(4).flatten(1, 3))


class Plain(nn.Module):
    """Config, stem and context that the classes share."""

    def __init__(self, **config):
        super().__init__()
        self.c = config
        self.dim = config["num_attention_heads"] * config["attention_head_dim"]

    def grid(self, x):
        return [size // patch for size, patch in zip(x.shape[2:], self.c["patch_size"])]

    def sinusoid(self, timestep, dtype):
        half = self.dim // 2
        frequency = 10000.0 ** (-torch.arange(half, dtype=dtype) / half)
        angle = timestep.to(dtype)[..., None] * frequency
        return torch.cat([angle.cos(), angle.sin()], -1)

    def per_token(self, x, grid):
        """[B, t | 1, C] -> [B, tokens | 1, C]"""
        return x if x.shape[1] == 1 else x.repeat_interleave(grid[1] * grid[2], 1)

    def with_masks(self, x, condition_mask, padding_mask):
        parts = [x] if condition_mask is None else [x, condition_mask]
        mask = torch.nn.functional.interpolate(padding_mask, size=x.shape[-2:], mode="nearest")
        parts.append(mask[:, :, None].expand(x.shape[0], 1, *x.shape[2:]))
        return torch.cat(parts, 1)

    def head(self, x, emb, temb, grid):
        shift, scale = self.norm_out(emb, temb)
        x = self.proj_out(layer_norm(x) * (1 + scale) + shift)
        pt, ph, pw = self.c["patch_size"]
        x = x.unflatten(2, (ph, pw, pt, -1)).unflatten(1, grid)  # [B, t, h, w, ph, pw, pt, C]
        x = x.permute(0, 7, 1, 6, 2, 4, 3, 5)  # [B, C, t, pt, h, ph, w, pw]
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def save_pretrained(self, folder):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"_class_name": type(self).__name__, **self.c}))
        weights = {name: p.detach().contiguous() for name, p in self.named_parameters()}
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})


class Output:
    def __init__(self, **fields):
        self.__dict__.update(fields)


class CosmosTransfer1ControlNetModel(Plain):
    def __init__(self, **config):
        super().__init__(**config)
        c, dim = self.c, self.dim
        self.patch_embed = Patches(c["in_channels"] + 1, c["patch_size"], dim)
        self.patch_embed_hint = Patches(c["hint_channels"] + 1, c["patch_size"], dim)
        self.time_embed = TimeEmbed(dim)
        self.learnable_pos_embed = Positions(c, dim) if c["extra_pos_embed_type"] else None
        widths = [dim, *c["hint_widths"], dim]
        self.hint_embed = nn.ModuleDict(
            {str(2 * i): nn.Linear(a, b) for i, (a, b) in enumerate(zip(widths, widths[1:]))})
        self.control_blocks = nn.ModuleList(Block(c, dim) for _ in range(c["num_control_blocks"]))
        self.zero_blocks = nn.ModuleList(nn.Linear(dim, dim) for _ in range(c["num_control_blocks"]))

    def forward(self, controls_latents, latents, timestep, encoder_hidden_states, condition_mask, padding_mask,
                conditioning_scale=1.0, fps=None):
        grid = self.grid(latents)
        x = self.patch_embed(self.with_masks(latents, condition_mask, padding_mask))
        room = self.c["hint_channels"] - controls_latents.shape[1]
        zeros = controls_latents.new_zeros(latents.shape[0], room, *latents.shape[2:])
        h = self.patch_embed_hint(self.with_masks(torch.cat([controls_latents, zeros], 1), None, padding_mask))
        for i in range(len(self.hint_embed)):
            if i:
                h = h * torch.sigmoid(h)
            h = self.hint_embed[str(2 * i)](h)
        s = self.sinusoid(timestep, x.dtype)[:, None]
        emb, temb = self.time_embed(s)
        angles = rope_angles(self.c, grid, fps, x.dtype)
        positions = self.learnable_pos_embed(grid) if self.learnable_pos_embed else None
        out = []
        for i, (block, zero) in enumerate(zip(self.control_blocks, self.zero_blocks)):
            x = block(x, emb, temb, encoder_hidden_states, angles, positions)
            if i == 0:
                x = x + h
            scale = conditioning_scale[i] if isinstance(conditioning_scale, list) else conditioning_scale
            out.append(zero(x) * scale)
        return Output(control_block_samples=out)


class Mlp(nn.Module):
    def __init__(self, width, hidden, out):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, out)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))))


class CosmosActionTransformer3DModel(Plain):
    def __init__(self, **config):
        super().__init__(**config)
        c, dim = self.c, self.dim
        self.patch_embed = Patches(c["in_channels"] + 1, c["patch_size"], dim)
        self.time_embed = TimeEmbed(dim)
        self.transformer_blocks = nn.ModuleList(Block(c, dim) for _ in range(c["num_layers"]))
        self.norm_out = Modulation(dim, c["adaln_lora_dim"], 2)
        self.proj_out = nn.Linear(dim, math.prod(c["patch_size"]) * c["out_channels"], bias=False)
        width = c["action_dim"] * c["num_actions"]
        self.action_embedder_B_D = Mlp(width, 4 * dim, dim)
        self.action_embedder_B_3D = Mlp(width, 4 * dim, 3 * dim)

    def action_code(self, embedder, action, condition_mask, frames):
        if not self.c["per_latent_frame"]:
            return embedder(action.flatten(1))[:, None]
        each = embedder(action.unflatten(1, (frames - 1, -1)).flatten(2))
        each = torch.cat([torch.zeros_like(each[:, :1]), each], 1)
        return each * (1 - condition_mask[:, 0, :, 0, 0])[..., None]

    def forward(self, hidden_states, timestep, encoder_hidden_states, action, condition_mask, padding_mask):
        grid = self.grid(hidden_states)
        x = self.patch_embed(self.with_masks(hidden_states, condition_mask, padding_mask))
        s = self.sinusoid(timestep.flatten(1) if timestep.dim() > 1 else timestep[:, None], x.dtype)
        codes = [self.action_code(e, action, condition_mask, grid[0])
                 for e in (self.action_embedder_B_D, self.action_embedder_B_3D)]
        emb, temb = self.time_embed(s, *codes)
        emb, temb = self.per_token(emb, grid), self.per_token(temb, grid)
        angles = rope_angles(self.c, grid, None, x.dtype)
        for block in self.transformer_blocks:
            x = block(x, emb, temb, encoder_hidden_states, angles, None)
        return Output(sample=self.head(x, emb, temb, grid))


class CosmosMultiViewTransformer3DModel(Plain):
    """Views one after another along T; every view is told which one it is, counts its frames from 0 and reads its
    own part of the text."""

    def __init__(self, **config):
        super().__init__(**config)
        c, dim = self.c, self.dim
        self.view_embeddings = nn.Embedding(c["n_cameras_emb"], c["view_condition_dim"])
        channels = c["in_channels"] + 1 + c["view_condition_dim"]
        self.patch_embed = Patches(channels, c["patch_size"], dim)
        self.time_embed = TimeEmbed(dim)
        self.transformer_blocks = nn.ModuleList(Block(c, dim) for _ in range(c["num_layers"]))
        self.norm_out = Modulation(dim, c["adaln_lora_dim"], 2)
        self.proj_out = nn.Linear(dim, math.prod(c["patch_size"]) * c["out_channels"], bias=False)

    def forward(self, hidden_states, timestep, encoder_hidden_states, condition_mask, padding_mask,
                view_indices=None, fps=None, block_controlnet_hidden_states=None):
        grid = self.grid(hidden_states)
        views = hidden_states.shape[2] // self.c["state_t"]
        code = view_code(self, hidden_states, view_indices)
        x = self.patch_embed(beside(self.with_masks(hidden_states, condition_mask, padding_mask), code))
        emb, temb, angles = view_context(self, timestep, grid, views, fps, x.dtype)
        text = encoder_hidden_states.chunk(views, 1)
        for i, block in enumerate(self.transformer_blocks):
            x = view_block(block, x, emb, temb, angles, text)
            every = self.c.get("controlnet_block_every_n")
            if block_controlnet_hidden_states and i % every == 0:
                x = x + block_controlnet_hidden_states[i // every]
        return Output(sample=self.head(x, emb, temb, grid))


def view_code(model, latents, view_indices):
    views = latents.shape[2] // model.c["state_t"]
    if view_indices is None:
        view_indices = torch.arange(views)[None]
    return model.view_embeddings(view_indices.expand(latents.shape[0], views))  # [B, V, E]


def beside(x, code):
    parts = [torch.cat([part, code[:, v, :, None, None, None].expand(-1, -1, *part.shape[2:])], 1)
             for v, part in enumerate(x.chunk(code.shape[1], 2))]
    return torch.cat(parts, 2)


def view_context(model, timestep, grid, views, fps, dtype):
    s = model.sinusoid(timestep.flatten(1) if timestep.dim() > 1 else timestep[:, None], dtype)
    emb, temb = model.time_embed(s)
    one = rope_angles(model.c, [grid[0] // views, *grid[1:]], fps, dtype)
    return model.per_token(emb, grid), model.per_token(temb, grid), torch.cat([one] * views)


def view_block(block, x, emb, temb, angles, text):
    shift, scale, gate = block.norm1(emb, temb)
    h = layer_norm(x) * (1 + scale) + shift
    x = x + gate * block.attn1(h, h, angles)
    shift, scale, gate = block.norm2(emb, temb)
    h = layer_norm(x) * (1 + scale) + shift
    x = x + gate * torch.cat([block.attn2(part, words) for part, words in zip(h.chunk(len(text), 1), text)], 1)
    shift, scale, gate = block.norm3(emb, temb)
    return x + gate * block.ff(layer_norm(x) * (1 + scale) + shift)


class CosmosMultiViewControlNetModel(Plain):
    def __init__(self, **config):
        super().__init__(**config)
        c, dim = self.c, self.dim
        more = c["view_condition_dim"]
        self.view_embeddings = nn.Embedding(c["n_cameras_emb"], more)
        self.patch_embed = Patches(c["in_channels"] + more, c["patch_size"], dim)
        self.patch_embed_base = Patches(c["latent_channels"] + more, c["patch_size"], dim)
        self.time_embed = TimeEmbed(dim)
        self.hint_embed = nn.ModuleDict({str(2 * i): nn.Linear(dim, dim) for i in range(c["hint_layers"])})
        self.control_blocks = nn.ModuleList(Block(c, dim) for _ in range(c["n_controlnet_blocks"]))
        for i, block in enumerate(self.control_blocks):
            block.after_proj = nn.Linear(dim, dim)
            if i == 0:
                block.before_proj = nn.Linear(dim, dim)

    def forward(self, controls_latents, latents, timestep, encoder_hidden_states, condition_mask, padding_mask,
                view_indices=None, conditioning_scale=1.0, fps=None):
        grid = self.grid(latents)
        views = latents.shape[2] // self.c["state_t"]
        code = view_code(self, latents, view_indices)
        room = self.c["in_channels"] - 2 - controls_latents.shape[1]
        control = torch.cat([controls_latents, latents.new_zeros(latents.shape[0], room, *latents.shape[2:])], 1)
        h = self.patch_embed(beside(self.with_masks(control, condition_mask, padding_mask), code))
        for layer in self.hint_embed.values():
            h = layer(h)
            h = h * torch.sigmoid(h)
        base = self.patch_embed_base(beside(self.with_masks(latents, condition_mask, padding_mask), code))
        emb, temb, angles = view_context(self, timestep, grid, views, fps, h.dtype)
        text = encoder_hidden_states.chunk(views, 1)
        x = self.control_blocks[0].before_proj(h) + base
        out = []
        for i, block in enumerate(self.control_blocks):
            x = view_block(block, x, emb, temb, angles, text)
            scale = conditioning_scale[i] if isinstance(conditioning_scale, list) else conditioning_scale
            out.append(block.after_proj(x) * scale)
        return Output(control_block_samples=out)
