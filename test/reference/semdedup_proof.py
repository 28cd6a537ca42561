"""cosmos-curate's semantic deduplication against plain NumPy on the same embeddings, its WebDataset shards
through Python's webdataset, and its Parquet through pyarrow.

    semdedup_proof.py [--seed N] [--no-table]

Makes 60 short clips (some alike), a random tiny Qwen3-VL, and writes docs/proofs/semdedup.md.
"""

import argparse
import csv
import datetime
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
import transformers
import webdataset
from safetensors.numpy import load_file

import proof
import vlm_cases

EPS, CLUSTERS = 0.002, 5


def make_clips(folder: pathlib.Path, rng: np.random.Generator) -> None:
    """Boxes that wander; every third clip is another one with a little noise."""
    folder.mkdir()
    earlier = None
    for k in range(60):
        if k % 3 != 2:
            colours, at, step = rng.integers(0, 256, (2, 3)), rng.integers(0, 20, 2), rng.integers(0, 3, 2)
            frames = np.empty((12, 48, 64, 3), np.uint8)
            frames[:] = colours[0]
            for t in range(12):
                y, x = at + t * step
                frames[t, y:y + 14, x:x + 18] = colours[1]
            earlier = frames
        else:
            frames = np.clip(earlier.astype(int) + rng.integers(-k, k + 1, earlier.shape), 0, 255).astype(np.uint8)
        command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-r", "6", "-i", "-",
                   "-c:v", "libx264", "-crf", "12", "-pix_fmt", "yuv420p", str(folder / f"{k:02d}.mp4")]  # fmt: skip
        subprocess.run(command, input=frames.tobytes(), check=True)


def make_model(folder: pathlib.Path, seed: int):
    """A tiny Qwen3-VL as the model proof has it, with processor files."""
    case = next(c for c in vlm_cases.CASES if c.class_name == "Qwen3VLForConditionalGeneration")
    model, _ = proof.write_folder(case, seed, folder)
    vision = model.config.vision_config
    pixels = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size,
              "temporal_patch_size": vision.temporal_patch_size,
              "size": {"shortest_edge": 64, "longest_edge": 4096}}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return model


def keep(rows: np.ndarray):
    """Farthest-first k-means, then SemDeDup's rule: kept, and each row's largest cosine to an earlier one."""
    chosen = [0]
    while len(chosen) < CLUSTERS:
        distances = ((rows[:, None] - rows[chosen]) ** 2).sum(-1).min(1)
        if distances.max() <= 2 * EPS:
            break
        chosen.append(int(distances.argmax()))
    centroids, assignment = rows[chosen], None
    for _ in range(100):
        nearest = ((rows[:, None] - centroids) ** 2).sum(-1).argmin(1)
        if assignment is not None and (nearest == assignment).all():
            break
        assignment = nearest
        centroids = np.stack([rows[assignment == k].mean(0) if (assignment == k).any() else centroids[k]
                              for k in range(len(chosen))])  # fmt: skip
    best = np.zeros(len(rows))
    for k in range(len(chosen)):
        members = np.flatnonzero(assignment == k)
        if len(members) == 0:
            continue
        closeness = rows[members] @ (centroids[k] / np.linalg.norm(centroids[k]))
        order = members[np.argsort(closeness, kind="stable")]
        for i in range(1, len(order)):
            best[order[i]] = (rows[order[:i]] @ rows[order[i]]).max()
    return best <= 1 - EPS, best


def tables_agree(out: pathlib.Path, rows: np.ndarray) -> bool:
    """Whether parquet/ says what the JSON lines and the safetensors say, value for value."""
    expected = {}
    for name in ("clips", "dropped"):
        for line in (out / f"{name}.jsonl").read_text().splitlines():
            expected[json.loads(line)["span_uuid"]] = json.loads(line)
    clips = pyarrow.parquet.read_table(out / "parquet/clips.parquet").to_pylist()
    for clip in clips:
        line = expected.pop(clip["span_uuid"])
        span, scores = line.pop("duration_span"), line.pop("scores")
        line |= {"begin_s": span[0], "end_s": span[1]} | {f"score_{name}": value for name, value in scores.items()}
        if clip != {name: line.get(name) for name in clip} or not line.keys() <= clip.keys():
            return False
    embeddings = pyarrow.parquet.read_table(out / "parquet/embeddings.parquet")
    vectors = embeddings["embedding"].combine_chunks()
    sources = pyarrow.parquet.read_table(out / "parquet/sources.parquet")
    return (not expected and np.array_equal(vectors.flatten().to_numpy().reshape(len(vectors), -1), rows)
            and sources.num_rows == 60 and set(sources["stage"].to_pylist()) == {"analysed"})


def prove(seed: int) -> dict:
    program = os.environ.get("COSMOS_CURATE", proof.ROOT / "build/cpu/bin/cosmos-curate")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        make_clips(work / "raw", np.random.default_rng(seed))
        make_model(work / "model", seed)
        config = {"inputs": [str(work / "raw")], "output": str(work / "out"), "caption": "Boxes.",
                  "split": {"method": "stride", "min_s": 0}, "filter": {"max_black": 1, "max_frozen": 1},
                  "dedup": {"near_bits": -1, "model": str(work / "model"), "eps": EPS, "clusters": CLUSTERS,
                            "side": 48, "frames": 4}, "outputs": {"shard_clips": 7, "parquet": True}}  # fmt: skip
        (work / "config.json").write_text(json.dumps(config))
        done = subprocess.run([str(program), str(work / "config.json")], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        ours = list(csv.DictReader((work / "out/semantic/pruning.csv").open()))
        stored = load_file(work / "out/semantic/embeddings.safetensors")["embeddings"]
        rows = stored.astype(np.float64)
        kept, best = keep(rows)
        got = np.array([row["kept"] == "1" for row in ours])
        cosines = np.array([float(row["cosine_sim_score"]) for row in ours])
        names = {row["id"] for row in ours if row["kept"] == "1"}
        published = {json.loads(line)["span_uuid"] for line in (work / "out/clips.jsonl").read_text().splitlines()}
        samples = {}
        for tar in sorted((work / "out/webdataset").glob("*/*/*/*/*/*.tar")):
            for sample in webdataset.WebDataset(str(tar), shardshuffle=False):
                samples.setdefault(sample["__key__"], {}).update(sample)
        whole = all(s["mp4"] == (work / f"out/videos/{key}.mp4").read_bytes() and s["txt"] == b"Boxes.\n"
                    and json.loads(s["json"])["span_uuid"] == key for key, s in samples.items())  # fmt: skip
        return {"clips": len(rows), "kept": int(kept.sum()), "same": bool((kept == got).all()),
                "cosine": float(np.abs(cosines - best).max()), "published": names == published,
                "samples": len(samples), "parquet": tables_agree(work / "out", stored),
                "webdataset": whole and samples.keys() == published}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--no-table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    row = prove(args.seed)
    print(row)
    agrees = row["same"] and row["published"] and row["webdataset"] and row["parquet"] and row["cosine"] < 1e-5 and (
        0 < row["kept"] < row["clips"])  # fmt: skip
    if not args.no_table and agrees:
        lines = [
            "# Semantic deduplication and shards", "",
            f"{datetime.date.today()}, numpy {np.__version__}, webdataset {importlib.metadata.version('webdataset')}, "
            f"transformers {transformers.__version__}, seed {args.seed}.",
            "Made by `test/reference/run.sh semdedup`: 60 short clips of which every third is another with noise, a",
            f"random tiny Qwen3-VL, {CLUSTERS} clusters, eps {EPS}.", "",
            f"- {row['clips']} embeddings, {row['kept']} kept: the same set as NumPy's k-means and pairwise cosine "
            f"in float64; largest cosines differ by {row['cosine']:.1e} at most.",
            f"- {row['samples']} samples read by `webdataset`: each clip's bytes, its caption and its metadata.",
            f"- Parquet read by pyarrow {pyarrow.__version__}: every value of clips.jsonl, dropped.jsonl and the "
            "embeddings.",
        ]  # fmt: skip
        (proof.ROOT / "docs/proofs/semdedup.md").write_text("\n".join(lines) + "\n")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
