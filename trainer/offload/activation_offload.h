#pragma once

// Activations that wait away from the device: what blocks save for backward goes to host memory (or
// a disk) as they save it, and comes back ahead of their backward.
//
// A BlockRunner and autograd's saved-variable hooks. The hooks come from the engine, so the first
// one that is made installs an engine of its own, autograd's with one more method; programs that
// offload nothing keep LibTorch's. What does not travel: parameters and buffers, small tensors, and
// what is there anyway when it is wanted again (text, rotary tables, held by others).

#include <cstdint>
#include <memory>

#include "modules/core/run_block.h"
#include "trainer/offload/away_memory.h"

namespace cosmos::trainer {

class ActivationOffload : public modules::BlockRunner {
 public:
  /// `inner` runs the block (recomputation: only its inputs are saved then, and travel), null for a
  /// plain call. Tensors of less than `min_bytes` stay.
  ActivationOffload(std::shared_ptr<AwayMemory> memory, std::shared_ptr<modules::BlockRunner> inner,
                    int64_t min_bytes = 64 << 10);
  ~ActivationOffload() override;

  Tensors run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
              const modules::BlockFn& fn) override;

  /// Bytes that left the device so far.
  int64_t moved_bytes() const;

 private:
  friend class OffloadHooks;
  struct State;
  struct Copy;
  struct Passage;
  std::shared_ptr<State> state_;
  std::shared_ptr<modules::BlockRunner> inner_;
};

}  // namespace cosmos::trainer
