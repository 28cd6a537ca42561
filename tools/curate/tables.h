#pragma once

// All that is known of a run, as tables.

#include "tools/curate/config.h"
#include "tools/curate/store.h"

namespace cosmos::curate {

/// Writes parquet/ where `outputs.parquet` is on:
///
///   clips.parquet        a part of a video a row, kept or not: what clips.jsonl and dropped.jsonl
///                        say, duration_span as begin_s and end_s, scores as score_...
///   sources.parquet      a file of the input a row
///   embeddings.parquet   id and embedding (a list of float32) of every clip that has one
///
/// Follows from the store alone. What is not UTF-8 in names of files is replaced.
void write_tables(Store& store, const Config& config);

}  // namespace cosmos::curate
