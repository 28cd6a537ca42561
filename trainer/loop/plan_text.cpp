// The plan as `cosmos-train --plan` prints it.

#include <sstream>

#include "trainer/loop/plan.h"
#include "trainer/report/console.h"

namespace cosmos::trainer {

std::string format_plan(const Plan& plan, const Config& config) {
  std::ostringstream out;
  const auto line = [&](const std::string& what, const std::string& value) {
    out << what << std::string(what.size() < 34 ? 34 - what.size() : 1, ' ') << value << '\n';
  };
  const auto known = [](double value, const std::string& text) {
    return value > 0 ? text : std::string("unknown (the recipe does not say)");
  };
  line("parameters", format_count(plan.parameters));
  line("trained", format_count(plan.trained));
  line("FLOPs per step",
       known(plan.flops_per_step, format_number(plan.flops_per_step * 1e-12) + " T"));
  const bool sharded = plan.gathered_bytes > 0;
  if (plan.ranks() > 1)
    line("ranks", std::to_string(plan.ranks()) + ": " + std::to_string(plan.replica) + " x " +
                      std::to_string(plan.shard) + " shards" +
                      (plan.tensor > 1 ? " x " + std::to_string(plan.tensor) + " slices" : "") +
                      (plan.pipeline > 1 ? " x " + std::to_string(plan.pipeline) + " stages" : "") +
                      "; bytes of one:");
  const bool wider = sharded && config.trainer.low_precision();
  line("weights (" + config.trainer.precision + (wider ? ", trained ones fp32)" : ")"),
       format_bytes(plan.weight_bytes));
  line("gradients", format_bytes(plan.gradient_bytes));
  line("AdamW moments (" + config.trainer.optimizer.moments + ")",
       format_bytes(plan.optimizer_bytes));
  if (!sharded) line("master weights (fp32)", format_bytes(plan.master_bytes));
  line("averaged weights (fp32)", format_bytes(plan.ema_bytes));
  if (sharded) {
    line("sums over micro-batches (fp32)", format_bytes(plan.sum_bytes));
    line("blocks gathered at a time", format_bytes(plan.gathered_bytes));
  }
  if (plan.context > 1)
    line("tokens of a sample",
         known(plan.tokens, format_count(static_cast<int64_t>(plan.tokens)) + ", on " +
                                std::to_string(plan.context) + " ranks"));
  line(plan.pipeline > 1 ? "activations of micro-batches held" : "activations of a micro-batch",
       known(plan.activation_bytes, format_bytes(plan.activation_bytes)));
  line("working memory of a block's backward",
       known(plan.working_bytes, format_bytes(plan.working_bytes)));
  if (plan.away_bytes > 0)
    line("state away (" + config.trainer.parallel.offload + ")", format_bytes(plan.away_bytes));
  if (plan.offloaded_bytes > 0)
    line("activations away (" + config.trainer.activation_offload + ")",
         format_bytes(plan.offloaded_bytes));
  if (plan.decoded_bytes > 0)
    line("moments decoded for a checkpoint", format_bytes(plan.decoded_bytes));
  if (plan.staging_bytes > 0)
    line("copy of the state for a checkpoint", format_bytes(plan.staging_bytes) + " on the host");
  line("predicted peak", format_bytes(plan.total_bytes()));
  line("communication per step", plan.ranks() > 1
                                     ? format_bytes(plan.gather_traffic) + " gathered, " +
                                           format_bytes(plan.reduce_traffic) + " reduced"
                                     : "none (one process)");
  if (plan.tensor > 1)
    line("activations between slices",
         known(plan.tensor_traffic, format_bytes(plan.tensor_traffic) + " a step"));
  if (plan.context > 1)
    line("tokens' exchange per step",
         known(plan.context_traffic, format_bytes(plan.context_traffic) + " received"));
  if (plan.pipeline > 1)
    line("sent to other stages",
         known(plan.pipeline_traffic, format_bytes(plan.pipeline_traffic) + " a step"));
  if (plan.available_bytes > 0) {
    const bool fits = plan.total_bytes() <= plan.available_bytes;
    line("free memory here",
         format_bytes(plan.available_bytes) + (fits ? ": fits" : ": does not fit"));
  }
  for (const std::string& change : plan.advice) out << "  " << change << '\n';
  return out.str();
}

}  // namespace cosmos::trainer
