"""cosmos-curate's aesthetic scores of real clips against transformers: random weights of a CLIP tower (saved by
its class) and of the head (saved by torch.save), pictures decoded by the ffmpeg program and prepared by CLIPImageProcessor.

    aesthetic_proof.py [--no-table]

Clips: the quickstart's footage (tools/fetch_footage.sh). Writes docs/proofs/aesthetic.md.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import av
import numpy as np
import torch
import transformers
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import proof
from aesthetic import AestheticPredictor

FOOTAGE = pathlib.Path(os.environ.get("COSMOS_FOOTAGE", proof.ROOT / ".deps/footage"))
LIMIT = 1e-5
TOWERS = {
    "small, 224": dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, patch_size=14),
    "small, 56, gelu": dict(hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=3,
                            patch_size=8, image_size=56, hidden_act="gelu"),
}  # fmt: skip


def models(work: pathlib.Path, config: dict, seed: int):
    generator = torch.Generator().manual_seed(seed)
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=768, **config)).eval()
    head = AestheticPredictor([768, 1024, 128, 64, 16, 1]).eval()
    proof.random_weights(tower, generator, 1.5)
    proof.random_weights(head, generator, 1.5)
    size = tower.config.image_size
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    tower.save_pretrained(work / "clip")
    processor.save_pretrained(work / "clip")
    torch.save(head.state_dict(), work / "head.pth")
    return tower, head, processor


def curated(clip: pathlib.Path, work: pathlib.Path, statistic: str):
    program = os.environ.get("COSMOS_CURATE", proof.ROOT / "build/cpu/bin/cosmos-curate")
    config = {
        "inputs": [str(clip)], "output": str(work / statistic), "split": {"method": "stride", "length_s": 1.4, "min_s": 0},
        "filter": {"max_frozen": 1}, "dedup": {"near_bits": -1},
        "aesthetic": {"model": str(work / "clip"), "head": str(work / "head.pth"), "statistic": statistic, "fps": 4},
    }  # fmt: skip
    (work / "config.json").write_text(json.dumps(config))
    done = subprocess.run([str(program), str(work / "config.json")], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return [json.loads(line) for line in (work / statistic / "clips.jsonl").read_text().splitlines()]


def decoded(clip: pathlib.Path):
    with av.open(str(clip)) as container:
        frames = [(float(f.time), f.height, f.width) for f in container.decode(video=0)]
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-f", "rawvideo", "-pix_fmt", "rgb24", "-threads", "1", "pipe:"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    times = np.array([t for t, _, _ in frames])
    return times - times[0], np.frombuffer(raw, np.uint8).reshape(len(frames), frames[0][1], frames[0][2], 3)


def reference(times, pictures, span, tower, head, processor):
    begin, end = span
    count = max(round((end - begin) * 4), 2)
    wanted = [begin + (end - begin) * (i + 0.5) / count for i in range(count)]
    chosen = [pictures[int(np.abs(times - t).argmin())] for t in wanted]
    with torch.no_grad():
        pixels = processor(images=chosen, return_tensors="pt")["pixel_values"]
        return head(tower(pixel_values=pixels).image_embeds)["scores"].numpy()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines, failed = [], False
    for seed, (name, config) in enumerate(TOWERS.items()):
        for clip in ("bikes.mp4", "bigbuckbunny.mp4"):
            with tempfile.TemporaryDirectory() as work:
                work = pathlib.Path(work)
                parts = models(work, config, seed)
                times, pictures = decoded(FOOTAGE / clip)
                worst, all_scores = 0.0, []
                for statistic in ("min", "mean"):
                    rows = curated(FOOTAGE / clip, work, statistic)
                    for row in rows:
                        scores = reference(times, pictures, row["duration_span"], *parts)
                        all_scores += list(scores)
                        want = getattr(scores, statistic)()
                        worst = max(worst, abs(row["scores"]["aesthetic"] - want))
                failed |= not worst <= LIMIT or not rows
                lines.append(f"| {name} | {clip} | {len(rows)} | {np.std(all_scores):.2f} | {worst:.1e} | "
                             f"{'agree' if worst <= LIMIT else 'differ'} |")  # fmt: skip
                print(lines[-1], flush=True)
    if not args.no_table:
        text = [
            "# Aesthetic scores against transformers",
            "",
            f"{datetime.date.today()}, transformers {transformers.__version__}, torch {torch.__version__}. "
            "Made by `test/reference/run.sh aesthetic`.",
            "Scores of clips by `cosmos-curate` beside CLIPImageProcessor, CLIPVisionModelWithProjection and the head in",
            "torch, on frames of the ffmpeg program; random weights, the head as `torch.save` writes it. Worst difference of a",
            f"clip's smallest and mean score; the limit is {LIMIT:.0e}. The networks alone:",
            "`test/reference/run.sh model --only clip`.",
            "",
            "| tower | clip | parts | deviation of frames' scores | worst difference | result |",
            "| --- | --- | ---: | ---: | ---: | --- |",
        ]
        (proof.ROOT / "docs/proofs/aesthetic.md").write_text("\n".join(text + lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
