#include "trainer/parallel/pipeline_stages.h"

#include <algorithm>

namespace cosmos::trainer {
namespace {

/// "transformer_blocks.3": one of a list.
bool is_numbered(const std::string& block) {
  const std::size_t dot = block.rfind('.');
  return dot != std::string::npos &&
         block.find_first_not_of("0123456789", dot + 1) == std::string::npos;
}

}  // namespace

PipelineStages::PipelineStages(const modules::Model& model, int64_t ranks, int64_t chunks)
    : ranks_(ranks), stages_(ranks * chunks) {
  const std::vector<std::string> order = model.block_order();
  require(!order.empty(), "trainer.parallel.pipeline: expected 1 for a ", model.class_name(),
          ", which cannot be cut between blocks, got ", ranks);
  const auto first = std::find_if(order.begin(), order.end(), is_numbered);
  const auto numbered = std::count_if(first, order.end(), is_numbered);
  require(numbered > 0 && numbered % stages_ == 0,
          "trainer.parallel.pipeline: expected a number of blocks that ", stages_, " stages (",
          ranks, " ranks x ", chunks, " chunks) divide, got ", numbered,
          "; use other numbers of ranks or pipeline_chunks");
  int64_t seen = 0;
  for (const std::string& block : order) {
    const bool stem = seen == 0 && !is_numbered(block);
    stage_of_[block] = stem ? 0 : std::min(seen * stages_ / numbered, stages_ - 1);
    seen += is_numbered(block) ? 1 : 0;
  }
}

int64_t PipelineStages::stage_of(const std::string& block) const {
  if (stages_ == 1) return 0;
  const auto found = stage_of_.find(block);
  require(found != stage_of_.end(), "pipeline: block ", block,
          " is not in the model's block_order()");
  return found->second;
}

}  // namespace cosmos::trainer
