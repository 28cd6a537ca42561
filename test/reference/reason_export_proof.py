"""What cosmos-train and cosmos-convert hand over of Reason models, loaded by transformers and PEFT: nothing
said about keys, our logits, tokenizer and processor files carried along. Writes docs/proofs/reason_export.md.

    reason_export_proof.py [--only SUBSTRING] [--no-table]

For each model a random folder as save_pretrained writes it, with tokenizer, processor and chat template, and
a few steps of the sft recipe on text and a picture. Then, transformers' or PEFT's logits against
cosmos-forward's:
  export   cosmos-convert export of the folder, in shards
  full     the same of a checkpoint that trained all weights
  part     cosmos-convert merge of a checkpoint that trained all but the vision tower
  read     an adapter that PEFT wrote, by cosmos-forward --adapter
  adapter  cosmos-convert adapter of a checkpoint with LoRA on every linear layer, by PEFT
  merge    cosmos-convert merge of the same
  experts  both of a checkpoint with LoRA on the experts' stacked weights (target_parameters)
  fp8      export --fp8: transformers (compressed-tensors) sees the weights that the file's numbers make, and
           its logits stay near
COSMOS_BIN names the folder of our programs (default build/cpu/bin).
"""

import argparse
import datetime
import json
import pathlib
import sys
import tempfile
import warnings

import peft
import PIL.Image
import torch
import transformers
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

import proof
import tiny_tokenizers
import vlm_cases as vlm
from lora_proof import no_key_warnings, program

VOCABULARY = 960
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# How vLLM renames a file's modules (hf_to_vllm_mapper of its classes): the first prefix that fits.
VLLM = {
    "Qwen2_5_VL": [("model.language_model.", "language_model.model."), ("model.visual.", "visual."),
                   ("lm_head.", "language_model.lm_head."), ("model.", "language_model.model.")],
    "Qwen3VL": [("model.visual.", "visual."), ("lm_head.", "language_model.lm_head."),
                ("model.language_model.", "language_model.model.")],
}  # fmt: skip
WAYS = ("export", "full", "part", "read", "adapter", "merge", "experts", "fp8")
NEAR = 0.25  # relative L2 of logits from those of unrounded weights: float8 rounds by up to 1/16, and
# activations are rounded too


def special_tokens(tokenizer) -> None:
    """Lets vlm_cases write the tokens of a real tokenizer."""
    names = dict(IMAGE="<|image_pad|>", VIDEO="<|video_pad|>", START="<|vision_start|>", END="<|vision_end|>")
    ids = {k: tokenizer.convert_tokens_to_ids(v) for k, v in names.items()}
    for name, token in ids.items():
        setattr(vlm, name, token)
    vlm.SPECIAL.update(
        image_token_id=ids["IMAGE"], video_token_id=ids["VIDEO"], vision_start_token_id=ids["START"],
        vision_end_token_id=ids["END"],
    )  # fmt: skip


def cases():
    text = {"vocab_size": VOCABULARY}
    rows = dict(rows=vlm.MIXED, padding="left", text=text)
    yield vlm.qwen25("", **rows, seconds=[2.0, 0.3])
    yield vlm.qwen3("dense", **rows)
    yield vlm.qwen3("tied embeddings", **rows, config={"tie_word_embeddings": True})
    yield vlm.qwen3("experts", **rows, moe=True)
    for name, moe in (("Qwen2", {}), ("Qwen3", {"head_dim": 12}), ("Qwen3Moe", {"head_dim": 12, **vlm.MOE})):
        yield vlm.lm(name, f"{name}ForCausalLM", [[9], [5]], padding="left", **text, **moe)


def has_vision(case) -> bool:
    return "VL" in case.class_name


def write_processor(case, tokenizer, folder: pathlib.Path) -> None:
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    if not has_vision(case):
        return
    sizes = dict(patch_size=4, size={"shortest_edge": 64, "longest_edge": 2048})
    image = transformers.Qwen2VLImageProcessor(**sizes)
    if "Qwen3" in case.class_name:
        video = transformers.Qwen3VLVideoProcessor(**sizes)
        processor = transformers.Qwen3VLProcessor(image, tokenizer, video, chat_template=TEMPLATE)
    else:
        video = transformers.Qwen2VLVideoProcessor(**sizes)
        processor = transformers.Qwen2_5_VLProcessor(image, tokenizer, video, chat_template=TEMPLATE)
    processor.save_pretrained(folder)


def write_data(case, folder: pathlib.Path) -> pathlib.Path:
    pixels = torch.randint(0, 256, (24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    PIL.Image.fromarray(pixels.numpy()).save(folder / "a.png")
    see = [{"type": "image", "image": "a.png"}] if has_vision(case) else []
    lines = [
        {"messages": [{"role": "user", "content": see + [{"type": "text", "text": "what is it"}]},
                      {"role": "assistant", "content": "a robot arm"}]},
        {"messages": [{"role": "user", "content": "and this"}, {"role": "assistant", "content": "a red cube"}]},
    ]  # fmt: skip
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def train(model: pathlib.Path, data: pathlib.Path, run: pathlib.Path, recipe: dict) -> pathlib.Path:
    """The checkpoint of three steps of the sft recipe."""
    config = {
        "recipe": {"type": "sft", "model": {"path": str(model)}, "data": {"files": [str(data)]}, **recipe},
        "trainer": {"steps": 3, "micro_batch_size": 2, "optimizer": {"lr": 1e-2}},
        "run": {"dir": str(run)},
    }
    path = run.with_suffix(".json")
    path.write_text(json.dumps(config))
    program("cosmos-train", path)
    return run / "checkpoints/step-00000003"


class Case:
    """A random folder, what was made of it, and its logits."""

    def __init__(self, case: proof.Case, seed: int, work: pathlib.Path, tokenizer):
        self.case, self.work, self.base = case, work, work / "base"
        torch.manual_seed(seed)
        self.random_model, self.inputs = proof.write_folder(case, seed, self.base)
        write_processor(case, tokenizer, self.base)
        self.data = write_data(case, work)
        self.at_rest = self.ours(self.base)

    def ours(self, model: pathlib.Path, adapter: pathlib.Path | None = None) -> torch.Tensor:
        save_file({k: v.contiguous() for k, v in self.inputs.items()}, self.work / "in.safetensors")
        program("cosmos-forward", "--model", model, "--inputs", self.work / "in.safetensors", "--outputs",
                self.work / "out.safetensors", *(["--adapter", adapter] if adapter else []))  # fmt: skip
        return load_file(self.work / "out.safetensors")["logits"]

    def load(self, folder: pathlib.Path):
        """transformers' model of the folder; raises when it has a word to say about keys."""
        transformers.logging.set_verbosity_warning()
        with no_key_warnings():
            model, report = getattr(transformers, self.case.class_name).from_pretrained(
                folder, output_loading_info=True
            )
        said = [f"{kind}: {keys}" for kind, keys in report.items() if keys]
        assert not said, "; ".join(said)
        return model.eval()

    def logits(self, model) -> torch.Tensor:
        with torch.no_grad():
            return model(**self.inputs).logits

    def error(self, theirs: torch.Tensor, ours: torch.Tensor, moved: bool = True) -> float:
        assert not moved or (ours - self.at_rest).norm() > 1e-2 * self.at_rest.norm(), "nothing was trained"
        return ((theirs - ours).norm() / ours.norm()).item()

    def carried(self, folder: pathlib.Path) -> None:
        """Tokenizer, processor and template are the base's, and transformers loads them."""
        for path in self.base.iterdir():
            if "safetensors" in path.name or path.name == "config.json":
                continue
            same = (folder / path.name).exists() and (folder / path.name).read_bytes() == path.read_bytes()
            assert same, f"{path.name} was not carried along"
        loader = transformers.AutoProcessor if has_vision(self.case) else transformers.AutoTokenizer
        chat = [{"role": "user", "content": "the robot"}]
        texts = [
            loader.from_pretrained(d).apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            for d in (self.base, folder)
        ]
        assert texts[0] == texts[1] and texts[0].endswith("assistant\n"), "the chat template is another"

    def same_config(self, folder: pathlib.Path) -> None:
        a, b = (json.loads((d / "config.json").read_text()) for d in (self.base, folder))
        keys = [k for k in a.keys() | b.keys() if a.get(k) != b.get(k)]
        assert not keys, f"config.json differs in {keys}"

    def export(self) -> float:
        out = self.work / "exported"
        program("cosmos-convert", "export", "--model", self.base, "--output", out, "--max-shard-size", "100KB")
        self.same_config(out)
        self.carried(out)
        return self.error(self.logits(self.load(out)), self.at_rest, moved=False)

    def full(self) -> float:
        checkpoint = train(self.base, self.data, self.work / "full_run", {})
        out = self.work / "full"
        program("cosmos-convert", "export", "--model", checkpoint, "--output", out)
        self.same_config(out)
        self.carried(out)
        return self.error(self.logits(self.load(out)), self.ours(checkpoint / "model"))

    def part(self) -> float | None:
        if not has_vision(self.case):
            return None
        checkpoint = train(self.base, self.data, self.work / "part_run", {"freeze": ["vision"]})
        out = self.work / "part"
        program("cosmos-convert", "merge", "--model", self.base, "--adapter", checkpoint, "--output", out,
                "--base-model", "random/base")  # fmt: skip
        self.carried(out)
        theirs = self.load(out)
        models = (theirs.model.visual.blocks, self.random_model.model.visual.blocks)
        towers = [dict(m.named_parameters()) for m in models]
        assert all(torch.equal(w, towers[1][n]) for n, w in towers[0].items()), "the frozen tower moved"
        return self.error(self.logits(theirs), self.ours(out))

    def read(self) -> float:
        # On Qwen3-MoE PEFT makes of "all-linear" LoRA on the experts' tensors too, of twice the rank where
        # two are one.
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
        model = peft.get_peft_model(self.load(self.base), config)
        generator = torch.Generator().manual_seed(5)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
        model.save_pretrained(self.work / "theirs")
        return self.error(self.logits(model.eval()), self.ours(self.base, self.work / "theirs"))

    def train_adapter(self) -> pathlib.Path:
        run = self.work / "lora_run"
        if not run.exists():
            train(self.base, self.data, run, {"lora": {"rank": 4, "alpha": 16}})
        return run / "checkpoints/step-00000003"

    def adapter(self) -> float:
        checkpoint, out = self.train_adapter(), self.work / "adapter"
        program("cosmos-convert", "adapter", "--model", self.base, "--adapter", checkpoint, "--output", out,
                "--base-model", "random/base")  # fmt: skip
        self.vllm_takes(out)
        base = self.load(self.base)
        everywhere = {
            n for n, m in base.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"
        }
        with no_key_warnings():
            model = peft.PeftModel.from_pretrained(base, out).eval()
        keys = load_file(out / "adapter_model.safetensors").keys()
        assert keys == get_peft_model_state_dict(model).keys(), "keys differ from PEFT's"
        adapted = {k.removeprefix("base_model.model.").rsplit(".", 2)[0] for k in keys}
        assert adapted == everywhere, f"not PEFT's all-linear: {sorted(adapted ^ everywhere)[:3]}"
        return self.error(self.logits(model), self.ours(self.base, checkpoint / "adapter"))

    def experts(self) -> float | None:
        if "moe" not in self.case.class_name.lower():
            return None
        targets = {"target_modules": ["q_proj", "o_proj"], "target_parameters": ["gate_up_proj", "down_proj"]}
        run, out = self.work / "experts_run", self.work / "experts"
        train(self.base, self.data, run, {"lora": {"rank": 4, "alpha": 16, **targets}})
        checkpoint = run / "checkpoints/step-00000003"
        program("cosmos-convert", "adapter", "--model", self.base, "--adapter", checkpoint, "--output", out,
                "--base-model", "random/base")  # fmt: skip
        with no_key_warnings():
            model = peft.PeftModel.from_pretrained(self.load(self.base), out).eval()
        keys = load_file(out / "adapter_model.safetensors").keys()
        assert keys == get_peft_model_state_dict(model).keys(), "keys differ from PEFT's"
        merged = self.work / "experts_merged"
        program("cosmos-convert", "merge", "--model", self.base, "--adapter", checkpoint, "--output", merged,
                "--base-model", "random/base")  # fmt: skip
        ours = self.ours(self.base, checkpoint / "adapter")
        return max(self.error(self.logits(model), ours), self.error(self.logits(self.load(merged)), ours))

    def vllm_takes(self, folder: pathlib.Path) -> None:
        """Each key names a module of vLLM's class, and the config holds nothing that it refuses."""
        config = json.loads((folder / "adapter_config.json").read_text())
        assert not config["modules_to_save"] and not config["use_dora"] and config["bias"] == "none"
        rules = next((r for name, r in VLLM.items() if self.case.class_name.startswith(name)), None)
        for key in load_file(folder / "adapter_model.safetensors"):
            stem, _, kind = key.removeprefix("base_model.model.").rpartition(".lora_")
            assert kind in ("A.weight", "B.weight"), key
            known = ("model.layers.",)
            if rules:
                stem = next(to + stem.removeprefix(of) for of, to in rules if stem.startswith(of))
                known = ("language_model.model.layers.", "visual.")
            assert stem.startswith(known), f"{key}: vLLM would look for {stem}"

    def merge(self) -> float:
        checkpoint, out = self.train_adapter(), self.work / "merged"
        program("cosmos-convert", "merge", "--model", self.base, "--adapter", checkpoint, "--output", out,
                "--base-model", "random/base")  # fmt: skip
        self.same_config(out)
        self.carried(out)
        return self.error(self.logits(self.load(out)), self.ours(self.base, checkpoint / "adapter"))


    def fp8(self) -> str | None:
        if "moe" in self.case.class_name.lower():
            return None
        out = self.work / "fp8"
        program("cosmos-convert", "export", "--model", self.base, "--output", out, "--fp8")
        self.carried(out)
        model = self.load(out)
        files = load_file(out / "model.safetensors")
        rounded = [k.removesuffix("_scale") for k in files if k.endswith("weight_scale")]
        layers = self.case.config.get("text_config", self.case.config)["num_hidden_layers"]
        assert len(rounded) == 7 * layers, f"{len(rounded)} products rounded in {layers} layers"
        near = self.error(self.logits(model), self.at_rest, moved=False)
        assert near < NEAR, f"logits are off by {near:.2f}"
        plain = load_file(self.base / "model.safetensors")
        seen = {n.split("layers.")[-1]: w for n, w in model.named_parameters() if "visual" not in n}
        for key in rounded:
            wide = files[key].float() * files[key + "_scale"].float()
            theirs = seen[key.split("layers.")[-1]]
            assert torch.allclose(theirs, wide, rtol=1e-6, atol=0), f"{key}: transformers made other weights of it"
            error = (wide - plain[key]).abs().amax() / plain[key].abs().amax()
            assert error < 2**-4, f"{key}: off by {error:.2g} of the largest"
        return f"{near:.3f}"


def run_case(case: proof.Case, seed: int, tokenizer) -> dict:
    """By way: the error, or what went wrong."""
    results = {}
    with tempfile.TemporaryDirectory() as work:
        made = Case(case, seed, pathlib.Path(work), tokenizer)
        for way in WAYS:
            try:
                results[way] = getattr(made, way)()
            except (AssertionError, RuntimeError, ValueError) as error:
                results[way] = f"FAILED: {error}"
    return results


def agrees(result) -> bool:
    if isinstance(result, str):
        return not result.startswith("FAILED")
    return result is None or result <= proof.TOLERANCE


def cell(result) -> str:
    return "-" if result is None else f"{result:.1e}" if isinstance(result, float) else result


def table(rows) -> str:
    lines = [
        "# Reason models in transformers, PEFT and vLLM",
        "",
        f"{datetime.date.today()}, transformers {transformers.__version__}, peft {peft.__version__}, torch "
        f"{torch.__version__}, float32 on the CPU, random weights.",
        "Made by `test/reference/run.sh reason_export`. Relative L2 distance of their logits (a batch with text, "
        f"images and videos) from ours; the limit is {proof.TOLERANCE:.0e}. A word of a loader about a key, a "
        "tokenizer, processor or template file that is not the base's, or a config that differs is a failure.",
        "",
        "export: the folder through `cosmos-convert export` in shards. full: a checkpoint of `sft` on all weights, "
        "exported. part: with the vision tower frozen, merged into the base. read: PEFT's adapter by "
        "`cosmos-forward --adapter`. adapter: LoRA on every linear layer, trained here, in PEFT; the same layers as "
        'PEFT\'s "all-linear"; keys as vLLM\'s classes rename them. merge: the same folded into the base. experts: '
        "both, with LoRA on the experts' stacked weights (`target_parameters`). fp8: products "
        "in float8 as compressed-tensors keeps them; transformers makes the weights of them that the file's numbers "
        "stand for, and the number is what rounding does to the logits.",
        "",
        "| model | " + " | ".join(WAYS) + " |",
        "| --- |" + " ---: |" * len(WAYS),
    ]
    lines += [f"| {name} | " + " | ".join(cell(r[w]) for w in WAYS) + " |" for name, r in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the models whose name contains this")
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Could not find a config file")  # "random/base" is on no hub
    with tempfile.TemporaryDirectory() as work:
        tokenizer = tiny_tokenizers.qwen(pathlib.Path(work))
    special_tokens(tokenizer)
    rows = []
    for index, case in enumerate(cases()):
        name = case.name.removeprefix("vlm/").strip()
        if args.only not in name:
            continue
        results = run_case(case, 20261125 + index, tokenizer)
        rows.append((name, results))
        print(f"{name:28}", *(f"{way} {cell(r)}" for way, r in results.items()), sep="  ", flush=True)
    good = sum(all(agrees(r) for r in results.values()) for _, results in rows)
    if not args.no_table and not args.only:
        path = proof.ROOT / "docs/proofs/reason_export.md"
        path.write_text(table(rows))
        print(f"wrote {path.relative_to(proof.ROOT)}")
    print(f"{good} of {len(rows)} models agree")
    return 0 if rows and good == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
