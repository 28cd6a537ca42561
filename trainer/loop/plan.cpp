#include "trainer/loop/plan.h"

#include <fstream>
#include <set>
#include <sstream>

#include "modules/core/init.h"
#include "trainer/report/console.h"

namespace cosmos::trainer {
namespace {

// MemAvailable of /proc/meminfo.
double available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string word;
  while (info >> word)
    if (double kib = 0; word == "MemAvailable:" && info >> kib) return kib * 1024;
  return 0;
}

std::vector<std::string> make_advice(const Plan& plan, const TrainerConfig& t) {
  std::vector<std::string> advice;
  if (plan.available_bytes <= 0 || plan.total_bytes() <= plan.available_bytes) return advice;
  const auto saves = [&](const std::string& change, double bytes) {
    if (bytes > 0) advice.push_back(change + " saves " + format_bytes(bytes));
  };
  if (t.activation_checkpointing != "full")
    saves("trainer.activation_checkpointing=full",
          plan.activation_bytes > 0 ? 0.75 * plan.activation_bytes : 0);
  if (t.micro_batch_size > 1)
    saves("trainer.micro_batch_size=1 with trainer.gradient_accumulation=" +
              std::to_string(t.micro_batch_size * t.gradient_accumulation),
          plan.activation_bytes * (1 - 1 / static_cast<double>(t.micro_batch_size)));
  if (t.ema.kind != "none") saves("trainer.ema.kind=none", plan.ema_bytes);
  const double state =
      plan.gradient_bytes + plan.optimizer_bytes + plan.master_bytes + plan.ema_bytes;
  if (plan.trained == plan.parameters) saves("LoRA instead of all weights", 0.98 * state);
  return advice;
}

}  // namespace

Plan make_plan(const Config& config, Recipe& recipe) {
  const TrainerConfig& t = config.trainer;
  const bool bf16 = t.precision == "bf16";
  Plan plan;
  {
    const modules::SkipInit untouched;
    const auto model = recipe.model_for_plan();
    std::set<void*> seen;
    for (const auto& item : model->named_parameters()) {
      const Tensor& p = item.value();
      if (!seen.insert(p.unsafeGetTensorImpl()).second) continue;
      const bool low = bf16 && !model->keeps_float32(item.key());
      const auto n = static_cast<double>(p.numel());
      plan.parameters += p.numel();
      plan.weight_bytes += n * (low ? 2 : 4);
      if (!p.requires_grad()) continue;
      plan.trained += p.numel();
      plan.gradient_bytes += n * (low ? 6 : 4);
      // Codes of a byte, and two float32 scales a block of 256.
      plan.optimizer_bytes += t.optimizer.moments == "int8" ? n * (2 + 8. / 256) : n * 8;
      plan.master_bytes += low ? n * 4 : 0;
      plan.ema_bytes += t.ema.kind == "none" ? 0 : n * 4;
    }
  }
  const auto micro = static_cast<double>(t.micro_batch_size);
  const int64_t element_bytes = bf16 ? 2 : 4;
  const double kept = recipe.activation_bytes_per_sample(/*recompute=*/false, element_bytes);
  const double recomputed = recipe.activation_bytes_per_sample(/*recompute=*/true, element_bytes);
  const double fraction = t.activation_checkpointing == "full"        ? 1
                          : t.activation_checkpointing == "selective" ? 1.0 / t.selective_every
                                                                      : 0;
  plan.activation_bytes = micro * (fraction * recomputed + (1 - fraction) * kept);
  plan.flops_per_step =
      recipe.flops_per_sample() * micro * static_cast<double>(t.gradient_accumulation);
  plan.available_bytes = available_memory();
  plan.advice = make_advice(plan, t);
  return plan;
}

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
  line("weights (" + config.trainer.precision + ")", format_bytes(plan.weight_bytes));
  line("gradients", format_bytes(plan.gradient_bytes));
  line("AdamW moments (" + config.trainer.optimizer.moments + ")",
       format_bytes(plan.optimizer_bytes));
  line("master weights (fp32)", format_bytes(plan.master_bytes));
  line("averaged weights (fp32)", format_bytes(plan.ema_bytes));
  line("activations of a micro-batch",
       known(plan.activation_bytes, format_bytes(plan.activation_bytes)));
  line("predicted peak, at least", format_bytes(plan.total_bytes()));
  line("communication per step", "none (one process)");
  if (plan.available_bytes > 0) {
    const bool fits = plan.total_bytes() <= plan.available_bytes;
    line("free memory here",
         format_bytes(plan.available_bytes) + (fits ? ": fits" : ": does not fit"));
  }
  for (const std::string& change : plan.advice) out << "  " << change << '\n';
  return out.str();
}

}  // namespace cosmos::trainer
