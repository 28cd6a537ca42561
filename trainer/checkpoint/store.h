#pragma once

// The checkpoints of one run: `dir`/step-00000100/, each complete or absent.
//
// A checkpoint is written under a hidden temporary name, made durable and renamed; its manifest
// trainer.json lists every other file with size and CRC-32C, so that a damaged one is recognised
// and named before anything is read from it.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "modules/hub/json_file.h"
#include "trainer/checkpoint/writer.h"

namespace cosmos::trainer {

/// Which checkpoints stay: those that any of the three wants.
struct Retention {
  int64_t last = 0;   ///< the newest; 0 = all
  int64_t every = 0;  ///< steps that this divides; 0 = none
  int64_t best = 0;   ///< of the lowest val_loss in their manifests
};

class CheckpointStore {
 public:
  explicit CheckpointStore(std::filesystem::path dir, Retention keep = {});

  /// The first half of a save: an empty folder under a temporary name, for ranks to write into.
  /// Removes what an interrupted save or removal left.
  std::filesystem::path begin(int64_t step);
  /// The second half, when everybody's files are there and synced: adds the manifest (`info` plus
  /// step and files), syncs the folders, gives the checkpoint its final name, and renames those
  /// that retention does not keep, for sweep() to delete. Throws Error when a file is not as `sums`
  /// say; then nothing stands under the final name.
  std::filesystem::path commit(int64_t step, const Json& info, const FileSums& sums);
  /// Removes what begin() made: some rank's part failed.
  void abandon(int64_t step);
  /// Deletes what commit() renamed. Takes as long as the disk needs; not while begin() runs.
  void sweep() const;

  /// Renames checkpoints of later steps to abandoned-step-N: what a run that went back to `step`
  /// left behind must not be picked up by the next resume. Returns their steps.
  std::vector<int64_t> set_aside_after(int64_t step) const;

  /// Steps of the checkpoints present, ascending.
  std::vector<int64_t> steps() const;
  std::filesystem::path path(int64_t step) const;
  /// Where begin() makes its folder.
  std::filesystem::path work_path(int64_t step) const;
  const std::filesystem::path& dir() const { return dir_; }

 private:
  void retire_old() const;
  void retire(int64_t step) const;
  std::optional<double> loss_of(int64_t step) const;

  std::filesystem::path dir_;
  Retention keep_;
};

/// The manifest of a checkpoint. Throws Error when there is none, or not of this format.
Json read_manifest(const std::filesystem::path& checkpoint);

/// Reads the `part`-th of `parts` equal parts of every file of a checkpoint. The parts of a
/// checkpoint, from as many processes, tell whether it is whole: check_sums(). Throws Error naming
/// the first file that is missing, of another size, or cannot be read.
FileSums sum_part(const std::filesystem::path& checkpoint, int64_t part, int64_t parts);
/// `sums`: all parts taken together. Throws Error naming the first file whose content is damaged.
void check_sums(const std::filesystem::path& checkpoint, const FileSums& sums);
/// Adds one process's part.
void add_sums(FileSums& sums, const FileSums& part);

/// The same by one process. Returns the manifest.
Json verify_checkpoint(const std::filesystem::path& checkpoint);

}  // namespace cosmos::trainer
