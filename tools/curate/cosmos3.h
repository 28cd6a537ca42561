#pragma once

// The list of clips that Cosmos 3's post-training reads.

#include "tools/curate/config.h"
#include "tools/curate/store.h"

namespace cosmos::curate {

/// Writes cosmos3.jsonl, a line a kept clip that has a caption, where `outputs.cosmos3` is on:
///
///   uuid, duration (s), width, height, framerate, nb_frames, vision_path (below the output
///   folder), t2w_windows: one, of the whole clip: start_frame, end_frame (the last one),
///   temporal_interval
///                (1: every frame), caption; a caption that is a JSON object is caption_json too
///
/// Cosmos 3's loader leaves out clips above 61 s and windows below 61 frames without a word; they
/// are left out here, and counted in cosmos3.summary.json with those that have no caption.
void write_cosmos3(Store& store, const Config& config);

}  // namespace cosmos::curate
