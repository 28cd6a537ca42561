"""cosmos-curate's search for burnt-in text on real clips: as they are, and with text that ffmpeg's drawtext puts on
them. No peer's numbers: a table of what is found and what is not.

    text_overlay_proof.py [--no-table]

Clips: the quickstart's footage (tools/fetch_footage.sh), cut into shots, and a still picture of it with grain. Needs
ffmpeg with drawtext and a DejaVu font. Writes docs/proofs/text_overlay.md.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import proof

FOOTAGE = pathlib.Path(os.environ.get("COSMOS_FOOTAGE", proof.ROOT / ".deps/footage"))
FONT = os.environ.get("COSMOS_FONT", "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf")
LIMIT = 0.01
LINE = f"drawtext=fontfile={FONT}:text='Breaking news today':"
# Text -> filter, and whether the README says that it is found.
TEXTS = {
    "none": ("null", False),
    "title, 1/8 of the height": (LINE + "fontsize=h/8:fontcolor=white:x=(w-tw)/2:y=h*0.4", True),
    "title, half transparent": (LINE + "fontsize=h/8:fontcolor=white@0.5:x=(w-tw)/2:y=h*0.4", True),
    "subtitle, 1/14, white with border": (LINE + "fontsize=h/14:fontcolor=white:borderw=2:x=(w-tw)/2:y=h*0.85", True),
    "subtitle, 1/14, yellow": (LINE + "fontsize=h/14:fontcolor=yellow:x=(w-tw)/2:y=h*0.85", True),
    "banner, 1/12, black on white": (LINE + "fontsize=h/12:box=1:boxcolor=white:x=w*0.05:y=h*0.05", True),
    "ticker that moves": (LINE + "fontsize=h/10:fontcolor=white:x=w-t*w/5:y=h*0.5", False),
}
STILL = "trim=end_frame=1,loop=74:1,setpts=N/25/TB,noise=alls=6:allf=t"


def scores(clip: pathlib.Path, vf: str, work: pathlib.Path):
    """Scores of the shots of the clip behind the filter; None: cannot be told."""
    video = work / "in.mp4"
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(clip), "-vf", vf, "-an", "-crf", "20", "-threads", "1", str(video)]
    subprocess.run(command, check=True)
    config = {
        "inputs": [str(video)], "output": str(work / "out"), "split": {"min_s": 0.5},
        "filter": {"max_frozen": 1, "max_text": LIMIT}, "dedup": {"near_bits": -1},
    }  # fmt: skip
    (work / "config.json").write_text(json.dumps(config))
    program = os.environ.get("COSMOS_CURATE", proof.ROOT / "build/cpu/bin/cosmos-curate")
    done = subprocess.run([str(program), str(work / "config.json")], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    parts = [json.loads(line) for name in ("clips", "dropped")
             for line in (work / f"out/{name}.jsonl").read_text().splitlines()]  # fmt: skip
    parts = [p for p in parts if "text" in p["scores"]]
    for part in parts:
        found = part["scores"]["text"] is not None and part["scores"]["text"] > LIMIT
        assert found == (part.get("reason") == "text"), part
    return [p["scores"]["text"] for p in parts]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()
    lines, failed = [], False
    for name in ("bikes.mp4", "bigbuckbunny.mp4"):
        for text, (vf, wanted) in {**TEXTS, "still camera, title": (STILL + "," + TEXTS["title, 1/8 of the height"][0],
                                                                    False)}.items():  # fmt: skip
            with tempfile.TemporaryDirectory() as work:
                found = scores(FOOTAGE / name, vf, pathlib.Path(work))
            numbers = [s for s in found if s is not None]
            hits = sum(s > LIMIT for s in numbers)
            agrees = len(found) > 0 and hits == (len(numbers) if wanted else 0)
            failed |= not agrees
            span = f"{min(numbers):.4f} to {max(numbers):.4f}" if numbers else ""
            lines.append(f"| {name} | {text} | {hits} of {len(numbers)} | {len(found) - len(numbers)} | {span} | {'' if agrees else 'not as said'} |")
            print(lines[-1], flush=True)
    if not args.no_table:
        head = [
            "# Burnt-in text on real clips",
            "",
            f"{datetime.date.today()}. Made by `test/reference/run.sh text_overlay`: shots of the footage with a line of text",
            f"that ffmpeg draws, found where `scores.text` is above {LIMIT}. Small set, one font, and the limit was set on it (0.002",
            "took a shot without text): it shows that the filter works, not how often it errs on footage at large. A still",
            "camera's shots cannot be told and pass.",
            "",
            "| clip | text | found in shots | cannot be told | score | |",
            "| --- | --- | ---: | ---: | ---: | --- |",
        ]
        (proof.ROOT / "docs/proofs/text_overlay.md").write_text("\n".join(head + lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
