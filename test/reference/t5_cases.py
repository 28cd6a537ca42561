"""T5EncoderModel: ReLU and gated MLPs, padding, long texts that reach the last bucket, odd widths."""

import torch

from proof import Case

SMALL = dict(vocab_size=50, d_model=24, d_kv=8, d_ff=40, num_layers=3, num_heads=3,
             relative_attention_num_buckets=8, relative_attention_max_distance=20)  # fmt: skip


def t5(name, length=9, batch=2, padded=True, **config):
    def inputs(generator):
        ids = torch.randint(0, config.get("vocab_size", 50), (batch, length), generator=generator)
        mask = torch.ones(batch, length, dtype=torch.long)
        if padded:
            mask[0, length * 2 // 3 :] = 0
        return {"input_ids": ids, "attention_mask": mask} if padded is not None else {"input_ids": ids}

    return Case(f"t5 {name}", "T5EncoderModel", {**SMALL, **config}, inputs, library="transformers")


CASES = [
    t5("11b shape: heads wider than d_model", num_heads=8, d_kv=8, d_ff=96),
    t5("no mask", padded=None),
    t5("gated gelu", feed_forward_proj="gated-gelu"),
    t5("gated silu", feed_forward_proj="gated-silu"),
    t5("gated relu, one layer", feed_forward_proj="gated-relu", num_layers=1),
    t5("gelu", feed_forward_proj="gelu", layer_norm_epsilon=1e-5),
    t5("gelu_new", feed_forward_proj="gelu_new", d_kv=5, d_model=17),
    t5("long", length=70, batch=1),
    t5("one token", length=1, padded=False),
    t5("buckets of T5-11B", length=150, batch=1, relative_attention_num_buckets=32,
       relative_attention_max_distance=128, num_layers=2),
]  # fmt: skip
