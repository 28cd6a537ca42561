#pragma once

// The stages a video goes through.

#include "modules/transnet/transnet.h"
#include "tools/curate/config.h"
#include "tools/curate/pipeline.h"
#include "tools/curate/store.h"

namespace cosmos::curate {

/// Hashes and probes a listed file and puts it into the store: probed, or failed with the reason.
class Probe : public Stage {
 public:
  explicit Probe(Store& store) : store_(store) {}
  std::string name() const override { return "probe"; }
  void run(Video& video) override;

 private:
  Store& store_;
};

/// The one decoding pass: features of every frame that decodes.
class Analyse : public Stage {
 public:
  /// Reads the shot detector's weights where it is asked for.
  explicit Analyse(const SplitConfig& config);
  std::string name() const override { return "analyse"; }
  void run(Video& video) override;

 private:
  std::shared_ptr<modules::TransNetV2> shots_;  ///< null: not asked for
};

/// Keeps what was measured of every frame: DIR/{sha256}.safetensors, a tensor [frames] a feature.
class SaveFrameScores : public Stage {
 public:
  explicit SaveFrameScores(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::string name() const override { return "frame scores"; }
  void run(Video& video) override;

 private:
  std::filesystem::path folder_;
};

class Split : public Stage {
 public:
  explicit Split(SplitConfig config) : config_(std::move(config)) {}
  std::string name() const override { return "split"; }
  void run(Video& video) override;

 private:
  SplitConfig config_;
};

class Filter : public Stage {
 public:
  explicit Filter(FilterConfig config) : config_(config) {}
  std::string name() const override { return "filter"; }
  void run(Video& video) override;

 private:
  FilterConfig config_;
};

/// Puts the parts into the store.
class Save : public Stage {
 public:
  explicit Save(Store& store) : store_(store) {}
  std::string name() const override { return "save"; }
  void run(Video& video) override;

 private:
  Store& store_;
};

/// Something that is done to each kept clip of an analysed video. A clip that throws fails, for the
/// reason `failure` and with the error's words; the others go on.
class ClipStage : public Stage {
 public:
  ClipStage(Store& store, std::string failure) : store_(store), failure_(std::move(failure)) {}
  void run(Video& video) final;

 protected:
  Store& store_;

 private:
  virtual bool wanted(const Segment& clip) = 0;
  virtual void process(Video& video, Segment& clip) = 0;

  std::string failure_;
};

/// Writes the kept parts as clips, videos/{id}.mp4, and says so in the store after each.
class Write : public ClipStage {
 public:
  Write(Store& store, std::filesystem::path output, ClipConfig config)
      : ClipStage(store, "cannot be written"),
        output_(std::move(output)),
        config_(std::move(config)) {}
  std::string name() const override { return "write"; }

 private:
  bool wanted(const Segment& clip) override { return clip.file.empty(); }
  void process(Video& video, Segment& clip) override;

  std::filesystem::path output_;
  ClipConfig config_;
};

}  // namespace cosmos::curate
