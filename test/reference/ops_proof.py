"""libcosmos_ops.so from Python: same numbers as torch's formulas, gradcheck, opcheck.

    python test/reference/ops_proof.py [build/cpu/lib/libcosmos_ops.so]

Needs torch 2.11.0. Prints one line a check; exit code 1 when one fails.
"""

import sys

import torch
import torch.nn.functional as F

LIBRARY = sys.argv[1] if len(sys.argv) > 1 else "build/cpu/lib/libcosmos_ops.so"
torch.ops.load_library(LIBRARY)
ops = torch.ops.cosmos
EPS = 1e-6
DROPPED = (0.7, 0.25, [3, 1 << 40])  # scale, p, seeds
failures = 0


def check(name, passed, detail=""):
    global failures
    failures += not passed
    print(f"{'ok  ' if passed else 'FAIL'} {name} {detail}".rstrip())


def adaln(x, scale, shift):
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


def rms_norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rms_norm_rope(x, weight, cos, sin):
    a, b = rms_norm(x, weight).chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def rope(x, cos, sin, interleaved):
    """Rotation of the first 2 * pairs numbers of every head; cos, sin: [(B,) L, pairs]."""
    pairs = cos.shape[-1]
    turned, rest = x[..., :2 * pairs], x[..., 2 * pairs:]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    a, b = a * cos - b * sin, b * cos + a * sin
    turned = torch.stack([a, b], -1).flatten(-2) if interleaved else torch.cat([a, b], -1)
    return torch.cat([turned, rest], -1)


def philox(key, counter):
    """One block of Philox 4x32-10, by its paper."""
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    c = [counter & 0xFFFFFFFF, counter >> 32, 0, 0]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def dropped(x):
    """x with the mask that ops/dropout/dropout.h describes, element by element."""
    _, p, seeds = DROPPED
    count = x.numel() // len(seeds)
    keep = []
    for seed in seeds:
        for i in range(count):
            u, j = divmod(i, 512)
            word = philox(seed, 64 * u + j % 256 // 4)[j % 4]
            keep.append((word & 0xFFFF if j < 256 else word >> 16) >= p * 65536)
    return x * torch.tensor(keep).view_as(x) / (1 - p)


def lora_linear(x, weight, bias, a, b, scale):
    return F.linear(x, weight, bias) + F.linear(F.linear(x, a), b) * scale


def rms_norm_silu(x, gamma):
    return F.silu(F.normalize(x, dim=1) * x.shape[1] ** 0.5 * gamma.view(-1, *[1] * (x.dim() - 2)))


def haar_signs(p):
    """[p^3, p^3] of +1 and -1: one row a band, one column a sample (t, h, w) of the block."""
    level = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    level = torch.kron(torch.kron(level, level), level)
    signs = level if p == 2 else torch.kron(level, level)
    # Columns of the product count (t1 h1 w1 t0 h0 w0), those of a block (t1 t0 h1 h0 w1 w0).
    n = p.bit_length() - 1
    order = [axis + 3 * i for axis in range(3) for i in range(n)]
    return signs.view(p**3, *[2] * (3 * n)).permute(0, *(1 + i for i in order)).reshape(p**3, -1)


def haar_patch(video, p, first):
    b, c, _, h, w = video.shape
    if first:
        video = torch.cat([video[:, :, :1].expand(-1, -1, p - 1, -1, -1), video], 2)
    x = video.view(b, c, -1, p, h // p, p, w // p, p).permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4, 6)
    return (haar_signs(p).to(x) @ x / p**3).flatten(4)


def haar_unpatch(patches, p, first):
    b, t, h, w, c = patches.shape
    x = haar_signs(p).to(patches).T @ patches.view(b, t, h, w, p**3, c // p**3)
    x = x.view(b, t, h, w, p, p, p, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.reshape(b, -1, t * p, h * p, w * p)[:, :, (p - 1) * first:]


def head_loss(hidden, weight, target, bias=None, reduction="mean"):
    """cross_entropy with label smoothing 0.1 and z-loss 0.01, each averaged as `reduction` says."""
    logits = F.linear(hidden, weight, bias).flatten(0, -2)
    loss = F.cross_entropy(logits, target.flatten(), label_smoothing=0.1, reduction="none")
    loss = (loss + 0.01 * logits.logsumexp(-1).square()) * (target.flatten() != -100)
    if reduction == "none":
        return loss.view(target.shape)
    return loss.sum() / ((target != -100).sum() if reduction == "mean" else 1)


def log_probs(hidden, weight, target, bias, temperature):
    logits = F.linear(hidden, weight, bias) / temperature
    return logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)


def diffusion_input(x0, noise, p, q):
    return p[:, None, :, None, None] * x0 + q[:, None, :, None, None] * noise


def diffusion_loss(output, x0, noise, p, q, weight):
    error = output - diffusion_input(x0, noise, p, q)
    return (error.pow(2).mean((1, 3, 4)) * weight).sum(1)


def patchify(x, pt, ph, pw):
    x = x.unflatten(2, (-1, pt)).unflatten(4, (-1, ph)).unflatten(6, (-1, pw))
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def unpatchify_last(tokens, pt, ph, pw):
    x = tokens.unflatten(4, (ph, pw, pt, -1)).permute(0, 7, 1, 6, 2, 4, 3, 5)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def leaf(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def cases(dtype):
    """name -> (operator, plain formula, arguments)."""
    def make(*shape):
        return leaf(*shape, dtype=dtype)

    def frozen(*shape):
        return torch.randn(*shape, dtype=dtype)

    angle, angles = frozen(5, 4), frozen(2, 5, 3)
    classes = torch.tensor([[3, 0, -100], [10, 5, 7]])
    head = (make(2, 3, 5), make(11, 5), classes)
    halves = tuple(t.detach().requires_grad_() for t in make(3, 5, 14).chunk(2, -1))
    frames = [torch.rand(2, 3, dtype=dtype) for _ in range(3)]
    latents = [frozen(2, 4, 3, 2, 5) for _ in range(2)]
    return {
        "adaln": (lambda *t: ops.adaln(*t, EPS), adaln, (make(2, 3, 5, 8), make(2, 3, 1, 8), make(2, 3, 1, 8))),
        "adaln, shared by samples": (lambda *t: ops.adaln(*t, EPS), adaln,
                                     (make(2, 3, 5, 8), make(1, 1, 1, 8), make(1, 1, 1, 8))),
        "gated_residual": (ops.gated_residual, lambda x, y, g: x + g * y,
                           (make(2, 3, 5, 8), make(2, 3, 5, 8), make(2, 1, 1, 8))),
        "gated_residual_adaln": (
            lambda *t: ops.gated_residual_adaln(*t, EPS),
            lambda x, y, g, s, b: (x + g * y, adaln(x + g * y, s, b)),
            (make(2, 3, 5, 8), make(2, 3, 5, 8)) + tuple(make(2, 3, 1, 8) for _ in range(3))),
        "rms_norm_silu": (ops.rms_norm_silu, rms_norm_silu, (make(2, 5, 3, 2, 3), make(5))),
        "rms_norm_silu, channels-last": (ops.rms_norm_silu, rms_norm_silu,
                                         (make(2, 3, 3, 5).movedim(-1, 1), make(5))),
        "haar_patch": (lambda x: ops.haar_patch(x, 4, 1), lambda x: haar_patch(x, 4, True),
                       (make(1, 2, 5, 4, 8),)),
        "haar_unpatch": (lambda x: ops.haar_unpatch(x, 2, 1), lambda x: haar_unpatch(x, 2, True),
                         (make(1, 2, 3, 2, 24),)),
        "rms_norm": (lambda *t: ops.rms_norm(*t, EPS), rms_norm, (make(3, 5, 7), make(7))),
        "rms_norm_rope": (lambda *t: ops.rms_norm_rope(*t, EPS), rms_norm_rope,
                          (make(2, 5, 3, 8), make(8), angle.cos(), angle.sin())),
        "rms_norm_rope, per sample, partial, interleaved": (
            lambda *t: ops.rms_norm_rope(*t, EPS, True),
            lambda x, w, c, s: rope(rms_norm(x, w), c, s, True),
            (make(2, 5, 3, 8), make(8), angles.cos(), angles.sin())),
        "rms_norm_rope, no weight": (
            lambda x, c, s: ops.rms_norm_rope(x, None, c, s),
            lambda x, c, s: rope(x, c, s, False), (make(2, 5, 3, 8), angles.cos(), angles.sin())),
        "lora_linear": (lambda *t: ops.lora_linear(*t, 0.7), lambda *t: lora_linear(*t, 0.7),
                        (make(2, 3, 6), frozen(5, 6), frozen(5), make(4, 6), make(5, 4))),
        "lora_linear, trained base": (lambda *t: ops.lora_linear(*t, 0.7), lambda *t: lora_linear(*t, 0.7),
                                      (make(2, 3, 6), make(5, 6), make(5), make(4, 6), make(5, 4))),
        "lora_linear, dropout": (
            lambda *t: ops.lora_linear(*t, *DROPPED),
            lambda x, w, b, A, B: F.linear(x, w, b) + F.linear(F.linear(dropped(x), A), B) * DROPPED[0],
            (make(2, 3, 6), frozen(5, 6), frozen(5), make(4, 6), make(5, 4))),
        "seeded_dropout": (lambda x: ops.seeded_dropout(x, *DROPPED[1:]), dropped, (make(2, 3, 700),)),
        "linear_cross_entropy": (lambda *t: ops.linear_cross_entropy(*t, None, -100, 0.1, 0.01), head_loss, head),
        "linear_cross_entropy, each token": (
            lambda *t: ops.linear_cross_entropy(*t, -100, 0.1, 0.01, "none"),
            lambda *t: head_loss(*t, reduction="none"), head + (make(11),)),
        "linear_log_probs": (lambda *t: ops.linear_log_probs(*t, 0.7), lambda *t: log_probs(*t, 0.7),
                             (make(2, 3, 5), make(11, 5), classes.abs() % 11, make(11))),
        "gelu": (ops.gelu, F.gelu, (make(3, 5, 7),)),
        "gelu, tanh": (lambda x: ops.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"),
                       (make(3, 5, 7),)),
        "swiglu": (ops.swiglu, lambda gate, up: F.silu(gate) * up, (make(3, 5, 7), make(3, 5, 7))),
        "swiglu, halves of one tensor": (ops.swiglu, lambda gate, up: F.silu(gate) * up, halves),
        "geglu": (ops.geglu, lambda gate, up: F.gelu(gate) * up, (make(3, 5, 7), make(3, 5, 7))),
        "geglu, tanh": (lambda *t: ops.geglu(*t, "tanh"),
                        lambda gate, up: F.gelu(gate, approximate="tanh") * up,
                        (make(3, 5, 7), make(3, 5, 7))),
        "diffusion_input": (ops.diffusion_input, diffusion_input,
                            (make(2, 4, 3, 2, 5), make(2, 4, 3, 2, 5), *frames[:2])),
        "diffusion_loss": (ops.diffusion_loss, diffusion_loss,
                           (make(2, 4, 3, 2, 5), *latents, *frames)),
        "patchify": (lambda x: ops.patchify(x, [2, 2, 3]), lambda x: patchify(x, 2, 2, 3),
                     (make(2, 3, 4, 4, 6),)),
        "unpatchify, channels last": (
            lambda x: ops.unpatchify(x, [2, 2, 3], True),
            lambda x: unpatchify_last(x, 2, 2, 3), (make(2, 2, 2, 2, 36),)),
    }


#: What the operators of cases() take beyond the tensors; (EPS,) where nothing stands here.
EXTRA = {
    "gated_residual": (), "gelu": (), "swiglu": (), "geglu": (), "linear_cross_entropy": (),
    "linear_log_probs": (), "lora_linear": (0.7,), "lora_linear, dropout": DROPPED,
    "seeded_dropout": DROPPED[1:], "rms_norm_silu": (1e-12, True), "haar_patch": (4, 1),
    "haar_unpatch": (2, 1), "gelu, tanh": ("tanh",), "geglu, tanh": ("tanh",),
    "diffusion_input": (), "diffusion_loss": (), "patchify": ([2, 2, 3],), "unpatchify": ([2, 2, 3], True),
}


def operator_of(name):
    base = name.split(",")[0]
    return getattr(ops, base).default, EXTRA.get(name, EXTRA.get(base, (EPS,)))


def check_values():
    for name, (ours, plain, inputs) in cases(torch.float32).items():
        got, want = ours(*inputs), plain(*(t.double() if t.is_floating_point() else t for t in inputs))
        got, want = (t if isinstance(t, tuple) else (t,) for t in (got, want))
        error = max(((g - w).norm() / w.norm()).item() for g, w in zip(got, want))
        check(f"{name}: forward", error < 5e-6, f"relative L2 {error:.1e}")


def check_gradients():
    for name, (ours, _, inputs) in cases(torch.float64).items():
        check(f"{name}: gradcheck", torch.autograd.gradcheck(ours, inputs))


def opcheck_all(calls):
    """calls: name -> (operator, arguments)."""
    for name, (operator, arguments) in calls.items():
        # The schema check compares arguments before and after, which it cannot do for float8.
        float8 = name.startswith("fp8_") and not name.startswith("fp8_quantize")
        others = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
        try:
            torch.library.opcheck(operator, arguments, **({"test_utils": others} if float8 else {}))
            check(f"{name}: opcheck", True)
        except Exception as error:  # noqa: BLE001: whatever opcheck found is the finding
            check(f"{name}: opcheck", False, str(error).strip().splitlines()[0])


def check_opcheck():
    calls = {}
    for name, (_, _, inputs) in cases(torch.float32).items():
        operator, extra = operator_of(name)
        if "no weight" in name:
            inputs = (inputs[0], None) + inputs[1:]
        if "interleaved" in name:
            extra += (True,)
        calls[name] = (operator, inputs + extra)
    opcheck_all(calls)


def check_causal_conv():
    """Against one 3-D convolution of the padded clip, frame 0 repeated, in time with a stride."""
    def plain(x, w, b):
        z = torch.cat([x[:, :1], x[:, :1], x], 1).permute(0, 4, 1, 2, 3)
        return F.conv3d(z, w, b, (2, 1, 1), (0, 1, 1)).permute(0, 2, 3, 4, 1)

    x, w, b = leaf(2, 5, 4, 5, 2), leaf(3, 2, 3, 3, 3), leaf(3)
    rest = ((2, 1, 1), 1, 2, True)
    ours = lambda *t: ops.causal_conv(t[0], None, *t[1:], *rest)  # noqa: E731
    check("causal_conv", torch.allclose(ours(x, w, b), plain(x, w, b)))
    check("causal_conv: gradcheck", torch.autograd.gradcheck(ours, (x, w, b)))
    opcheck_all({"causal_conv": (ops.causal_conv.default, (x, None, w, b, *rest)),
                 "causal_conv, past": (ops.causal_conv.default,
                                       (x, leaf(2, 2, 4, 5, 2), w, b, *rest))})


def check_linear():
    """Few rows without a gradient take a kernel, and with one the library's product."""
    x, weight, bias = leaf(3, 6), leaf(5, 6), leaf(5)
    frozen = tuple(t.detach().float() for t in (x, weight, bias))
    check("linear", torch.allclose(ops.linear(*frozen), F.linear(*frozen), atol=1e-6))
    check("linear: gradcheck", torch.autograd.gradcheck(ops.linear, (x, weight, bias)))
    opcheck_all({"linear": (ops.linear.default, (x, weight, bias)),
                 "linear, few rows": (ops.linear.default, frozen)})


def check_attention():
    """Packed sequences against one call each; a neighborhood against its mask."""
    q, k, v = (leaf(9, 2, 4) for _ in range(3))
    offsets = [0, 4, 9]

    def one(a, b, *t):
        return F.scaled_dot_product_attention(*(x[a:b].transpose(0, 1) for x in t), is_causal=True).transpose(0, 1)

    def packed(*t):
        return ops.varlen_attention(*t, offsets, offsets, True)

    def near(*t):
        return ops.neighborhood_attention(*t, [1, 2, 6], [1, 1, 3])

    want = torch.cat([one(a, b, q, k, v) for a, b in zip(offsets, offsets[1:])])
    check("varlen_attention", torch.allclose(packed(q, k, v), want))
    check("varlen_attention: gradcheck", torch.autograd.gradcheck(packed, (q, k, v)))
    opcheck_all({"varlen_attention": (ops.varlen_attention.default, (q, k, v, offsets, offsets))})
    q, k, v = (leaf(1, 12, 2, 4) for _ in range(3))
    row = torch.tensor([[abs(min(max(i, 1), 4) - j) <= 1 for j in range(6)] for i in range(6)])
    mask = torch.block_diag(row, row).bool()
    want = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask)
    check("neighborhood_attention", torch.allclose(near(q, k, v), want.transpose(1, 2)))
    check("neighborhood_attention: gradcheck", torch.autograd.gradcheck(near, (q, k, v)))


def check_fsq():
    """The codes step, so gradcheck has nothing to say: the gradient is the bounded latent's."""
    counts = torch.tensor([8, 8, 8, 5, 5, 5])
    levels, z = counts.tolist(), leaf(2, 7, 6)
    half, offset = (counts - 1) * (1 + 1e-3) / 2, torch.where(counts % 2 == 0, 0.5, 0.0)
    bounded = (z + (offset / half).atanh()).tanh() * half - offset
    want = (bounded + (bounded.round() - bounded).detach()) / (counts // 2)
    basis = torch.cumprod(torch.tensor([1] + levels[:-1]), 0)
    codes, indices = ops.fsq(z, levels)
    check("fsq: codes", torch.allclose(codes, want))
    check("fsq: indices", torch.equal(
        indices, ((bounded.round().long() + counts // 2) * basis).sum(-1).int()))
    check("fsq_decode", torch.allclose(ops.fsq_decode(indices, levels, torch.float64), codes))
    seed = torch.randn_like(z)
    got, exact = (torch.autograd.grad(y, z, seed)[0] for y in (codes, want))
    check("fsq: gradient", torch.allclose(got, exact, atol=1e-6))
    opcheck_all({"fsq": (ops.fsq.default, (leaf(3, 6, dtype=torch.float32), levels)),
                 "fsq_decode": (ops.fsq_decode.default, (indices.detach(), levels))})


def check_adamw():
    params = [torch.nn.Parameter(torch.randn(7, 3)), torch.nn.Parameter(torch.randn(70001))]
    twin = [torch.nn.Parameter(p.detach().clone()) for p in params]
    optimizer = torch.optim.AdamW(twin, lr=1e-2, weight_decay=0.1, fused=True)
    first = [torch.zeros_like(p) for p in params]
    second = [torch.zeros_like(p) for p in params]
    steps = [torch.zeros(()) for p in params]
    worst = 0
    for _ in range(5):
        grads = [torch.randn_like(p) for p in params]
        for p, g in zip(twin, grads):
            p.grad = g.clone()
        norm = torch.nn.utils.clip_grad_norm_(twin, 1.0)
        optimizer.step()
        ours = ops.grad_norm(grads)
        worst = max(worst, abs(ours / norm - 1).item())
        with torch.no_grad():
            clip = torch.clamp(1.0 / (ours + 1e-6), max=1.0)
            ops.adamw_step_([p.data for p in params], grads, first, second, steps, [], [], clip,
                            1e-2, 0.9, 0.999, 1e-8, 0.1, 0.0, [], [])
    check("grad_norm", worst < 1e-6, f"relative {worst:.1e}")
    error = max((p - q).abs().max().item() for p, q in zip(params, twin))
    check("adamw_step_ against AdamW(fused=True) after 5 clipped steps", error < 2e-6,
          f"largest difference {error:.1e}")


def check_shard_copy():
    """Three ranks, uneven rows: every copy against chunk and cat, then opcheck."""
    world, ranks = 3, range(3)
    full = [torch.randn(7, 3), torch.randn(5), torch.randn(2, 2, 2), torch.randn(6, 4).t()]
    sizes = [-(-x.shape[0] // world) * x[0].numel() for x in full]

    def shard(x, rank):
        rows = -(-x.shape[0] // world)
        return x[rank * rows:(rank + 1) * rows]

    def row(rank):
        return torch.cat([F.pad(shard(x, rank).flatten(), (0, n - shard(x, rank).numel()))
                          for x, n in zip(full, sizes)])

    want = torch.stack([row(rank) for rank in ranks])
    chunked = torch.empty_like(want)
    ops.reduce_scatter_copy_in(full, chunked)
    check("reduce_scatter_copy_in", torch.equal(chunked, want))
    gathered = torch.empty_like(want, dtype=torch.bfloat16)
    for rank in ranks:
        ops.all_gather_copy_in([shard(x, rank) for x in full], sizes, rank, gathered)
    check("all_gather_copy_in", torch.equal(gathered, want.bfloat16()))
    outs = [torch.empty(x.shape) for x in full]
    ops.all_gather_copy_out(gathered, outs)
    check("all_gather_copy_out",
          all(torch.equal(out, x.bfloat16().float()) for out, x in zip(outs, full)))
    shards = [torch.ones_like(shard(x, 2), memory_format=torch.contiguous_format) for x in full]
    ops.reduce_scatter_copy_out(want[2], sizes, shards, 0.5, True)
    check("reduce_scatter_copy_out",
          all(torch.equal(s, 1 + shard(x, 2) / 2) for s, x in zip(shards, full)))
    calls = {
        "all_gather_copy_in": ([shard(x, 0) for x in full], sizes, 0, gathered),
        "all_gather_copy_out": (gathered, outs),
        "reduce_scatter_copy_in": (full, chunked),
        "reduce_scatter_copy_out": (want[2], sizes, shards, 0.5, True),
    }
    opcheck_all({name: (getattr(ops, name).default, arguments) for name, arguments in calls.items()})


def fp8_formula(x, dtype, granularity):
    """(values, scale) with torch's casts; x: [R, K], multiples of 128."""
    rows, columns = x.shape
    height, width = {"tensor": (rows, columns), "row": (1, columns), "1x128": (1, 128), "128x128": (128, 128)}[granularity]
    blocks = x.float().view(rows // height, height, columns // width, width)
    largest = torch.finfo(dtype).max
    scale = blocks.abs().amax((1, 3), keepdim=True) / largest
    values = (blocks * (1 / scale)).clamp(-largest, largest).to(dtype).view(rows, columns)
    return values, scale.view(rows // height, columns // width)


def check_fp8():
    x, weight = torch.randn(256, 384), torch.randn(128, 384)
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        for granularity in ("tensor", "row", "1x128", "128x128"):
            q, scale, _ = ops.fp8_quantize(x, dtype, granularity)
            want, want_scale = fp8_formula(x, dtype, granularity)
            same = torch.equal(q.view(torch.uint8), want.view(torch.uint8))
            check(f"fp8_quantize {granularity} {dtype}: same bits", same and torch.equal(scale.view(-1), want_scale.view(-1)))
    q, scale, q_t, scale_t, _ = ops.fp8_quantize_pair(x, torch.float8_e4m3fn, "1x128")
    check("fp8_quantize_pair: same bits as the transpose's",
          torch.equal(q_t.view(torch.uint8), fp8_formula(x.t().contiguous(), torch.float8_e4m3fn, "1x128")[0].view(torch.uint8)))
    a, sa, _ = ops.fp8_quantize(x, torch.float8_e4m3fn, "tensor")
    b, sb, _ = ops.fp8_quantize(weight, torch.float8_e4m3fn, "tensor")
    got = ops.fp8_mm(a, sa, b, sb, torch.float32)
    want = torch._scaled_mm(a, b.t(), sa, sb, out_dtype=torch.float32)
    error = ((got - want).norm() / want.norm()).item()
    check("fp8_mm against torch._scaled_mm", error < 5e-6, f"relative L2 {error:.1e}")
    x.requires_grad_()
    weight.requires_grad_()
    e4m3 = torch.float8_e4m3fn
    calls = {
        "fp8_quantize": (ops.fp8_quantize.default, (x.detach(), e4m3, "row")),
        "fp8_quantize_pair": (ops.fp8_quantize_pair.default, (x.detach(), e4m3, "128x128")),
        "fp8_dequantize": (ops.fp8_dequantize.default, (q, scale, torch.float32)),
        "fp8_mm": (ops.fp8_mm.default, (a, sa, b, sb, torch.float32)),
        **{f"fp8_linear, {s}": (ops.fp8_linear.default, (x, weight, None, s, e4m3)) for s in ("tensor", "row", "block")},
    }
    opcheck_all(calls)


def main():
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {LIBRARY}")
    check_values()
    check_gradients()
    check_opcheck()
    check_linear()
    check_attention()
    check_causal_conv()
    check_fsq()
    check_adamw()
    check_shard_copy()
    check_fp8()
    print(f"{failures} failed")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
