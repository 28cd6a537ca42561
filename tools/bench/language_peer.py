"""transformers' Qwen3ForCausalLM, timed: a training step, a prompt, tokens written one at a time.

The peer of bench-language; prints one JSON object with the same fields. Run by language.sh.
"""

import argparse
import json
import resource
import time

from dit_step_peer import process_age

SMALL = dict(
    vocab_size=32768, hidden_size=1024, intermediate_size=3072, num_hidden_layers=8, num_attention_heads=16,
    num_key_value_heads=8, head_dim=64, tie_word_embeddings=True,
)  # fmt: skip
SHAPES = {
    "small": SMALL,
    "2b": SMALL | dict(vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, head_dim=128),
}
PROMPT = 64


class Written:
    """A streamer that notes when each token comes: reading the prompt is no part of decoding."""

    def __init__(self):
        self.times = []

    def put(self, _):
        self.times.append(time.perf_counter())

    def end(self):
        self.times, self.last = [], self.times[1:]  # the first call hands over the prompt

    def seconds_a_token(self):
        return (self.last[-1] - self.last[0]) / (len(self.last) - 1)


def make_model(transformers, torch, shape, dtype):
    config = transformers.Qwen3Config(**SHAPES[shape], bos_token_id=None, eos_token_id=None, pad_token_id=None)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device("meta"):
        model = transformers.Qwen3ForCausalLM(config)
    torch.set_default_dtype(before)
    rotary = model.model.rotary_emb
    model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.02) if weight.dim() > 1 else weight.fill_(1)
    model.model.rotary_emb = type(rotary)(config)  # its buffers are no weights
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=["train", "prefill", "decode"], default="train")
    parser.add_argument("--shape", choices=list(SHAPES), default="small")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = make_model(transformers, torch, args.shape, getattr(torch, args.dtype))
    vocabulary = model.config.vocab_size
    ids = torch.randint(vocabulary, (1, PROMPT if args.what == "decode" else args.tokens))

    if args.what == "train":
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step():
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.item()
    else:
        model.eval()

        written = Written()

        def write(count):
            with torch.no_grad():
                return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
                                      min_new_tokens=count, do_sample=False, streamer=written)  # fmt: skip

        def prefill():
            with torch.no_grad():
                return model(input_ids=ids, use_cache=True, logits_to_keep=1).logits.amax().item()

        def step():
            return prefill() if args.what == "prefill" else write(args.tokens + 1)[0, -1].item()

    result = {"what": args.what, "by": "transformers", "shape": args.shape, "dtype": args.dtype, "step_s": [],
              "loss": [], "first_step_begins_s": process_age(), "threads": torch.get_num_threads(),
              "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}  # fmt: skip
    for _ in range(args.steps):
        start = time.perf_counter()
        result["loss"].append(step())
        took = time.perf_counter() - start
        result["step_s"].append(written.seconds_a_token() if args.what == "decode" else took)
    result["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
