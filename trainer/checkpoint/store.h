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

namespace cosmos::trainer {

class CheckpointStore {
 public:
  /// Keeps the newest `keep` checkpoints (0 = all).
  CheckpointStore(std::filesystem::path dir, int64_t keep);

  /// Calls `write` with an empty folder, adds the manifest (`info` plus step and files), and gives
  /// the folder its final name. Older checkpoints beyond `keep` are then removed. On any failure
  /// (a full disk) nothing is left under the final name, and the exception goes on.
  std::filesystem::path save(int64_t step, const Json& info,
                             const std::function<void(const std::filesystem::path&)>& write);

  /// The newest checkpoint that passes verify(); `report` receives one line for each that does not.
  std::optional<std::filesystem::path> newest(
      const std::function<void(const std::string&)>& report) const;

  /// Renames checkpoints of later steps to abandoned-step-N: what a run that went back to `step`
  /// left behind must not be picked up by the next resume. Returns their steps.
  std::vector<int64_t> set_aside_after(int64_t step) const;

  /// Steps of the checkpoints present, ascending.
  std::vector<int64_t> steps() const;
  std::filesystem::path path(int64_t step) const;

 private:
  void remove_old() const;
  void remove_temporaries() const;

  std::filesystem::path dir_;
  int64_t keep_;
};

/// The manifest of a checkpoint. Throws Error when there is none, or not of this format.
Json read_manifest(const std::filesystem::path& checkpoint);

/// Checks every file of a checkpoint against its manifest, and returns the manifest. Throws Error
/// naming the first file that is missing or damaged.
Json verify_checkpoint(const std::filesystem::path& checkpoint);

}  // namespace cosmos::trainer
