#pragma once

// Pipeline parallelism from outside the model: every rank of the mesh's axis "pipeline" holds some
// runs of consecutive blocks (stages), and micro-batches go from one to the next.
//
// Each rank calls the model's forward for every micro-batch and stage of its own. As the model's
// block runner it answers for blocks of earlier stages with what arrived of them, runs its own, and
// leaves the forward at the first block of a later stage, whose inputs say what must be sent on:
// the hidden states and whatever else blocks share (time code, text). What arrived is a leaf of the
// stage's own graph; its gradient, summed over the stage's blocks, goes back once.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "modules/core/linear.h"
#include "trainer/parallel/fully_shard.h"
#include "trainer/parallel/pipeline_link.h"
#include "trainer/parallel/pipeline_schedule.h"
#include "trainer/parallel/pipeline_stages.h"

namespace cosmos::trainer {

/// What a step goes through.
struct MicroBatches {
  int64_t count = 0;
  /// The same text for micro-batches of the same shapes, and the same on all stages.
  std::function<std::string(int64_t micro_batch)> shape;
  /// Called before a backward, which may run the micro-batch's blocks again.
  std::function<void(int64_t micro_batch)> prepare;
  /// Runs the model and returns its share of the step's loss. Before the last stage it is left by
  /// an exception from the block runner, which must pass.
  std::function<Tensor(int64_t micro_batch)> loss;
};

class Pipeline : public modules::BlockRunner {
 public:
  /// `blocks` runs this rank's blocks. With zero_bubble the model's Linears postpone their weight
  /// gradients from then on. Called by all ranks of the mesh.
  Pipeline(modules::Model& model, const Mesh& mesh, PipelineStages stages,
           PipelineSchedule schedule, std::shared_ptr<FullyShard> blocks);

  /// In a step as above. Outside one, without gradients (validation, samples), each block runs on
  /// the rank that holds it and all ranks get its outputs.
  Tensors run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
              const modules::BlockFn& fn) override;

  /// Forward and backward of all micro-batches; gradients are reduced at its end.
  void step(const MicroBatches& micro_batches);

  /// The last stage's scalar, on all. Others may give an undefined one.
  Tensor from_last(const Tensor& scalar) const;
  /// The last stage's text, on all.
  std::string from_last(const std::string& text) const;
  /// Bytes that this rank sent to other stages so far.
  int64_t sent_bytes() const;

 private:
  /// An output of a block: computed here, arrived (a leaf), or known by its shape alone (NaN).
  struct Value {
    StageValue info;
    Tensor tensor;
    bool here = true;
  };
  /// One micro-batch on one stage.
  struct Passage {
    int64_t stage = 0;
    std::vector<Value> values;
    Tensors arrived, sent;  ///< carried values that require gradients, in and out
    Tensor loss;
    bool left = false;  ///< at the first block of a later stage
    std::vector<std::function<void()>> weights;
  };
  using Key = std::pair<int64_t, int64_t>;  ///< stage, micro-batch
  struct Arrival {
    Tensors tensors;
    Pending pending;
  };

  bool last(int64_t stage) const { return stage + 1 == stages_.stages(); }
  Tensors empty_like(const StageLayout& layout, bool gradients) const;
  Tensors run_everywhere(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
                         const modules::BlockFn& fn);
  Tensors earlier(const std::string& name) const;
  [[noreturn]] void leave(const std::string& name, const Tensors& inputs);
  void check_here(const std::string& name, const Tensors& inputs) const;

  bool post(const PipelineAction& action, const MicroBatches& micro_batches);
  Tensors arrive(const PipelineAction& action, const MicroBatches& micro_batches);
  void forward(const PipelineAction& action, const Tensors& arrived,
               const MicroBatches& micro_batches);
  void send_on(Passage& passage, const std::string& shape);
  void backward(const PipelineAction& action, const Tensors& gradients);
  void weights(const PipelineAction& action);

  const Mesh& mesh_;
  PipelineStages stages_;
  PipelineSchedule schedule_;
  std::shared_ptr<FullyShard> blocks_;
  at::Device device_;
  std::shared_ptr<modules::PostponedGradients> postponed_;  ///< null but with zero_bubble
  std::unique_ptr<PipelineLink> in_, out_, gradients_in_, gradients_out_;

  std::map<std::pair<int64_t, std::string>, StageLayout> layouts_in_, layouts_out_;
  std::map<Key, Passage> passages_;
  std::map<Key, Arrival> forwards_, backwards_;  ///< on their way
  Passage* passage_ = nullptr;                   ///< whose forward runs
};

}  // namespace cosmos::trainer
