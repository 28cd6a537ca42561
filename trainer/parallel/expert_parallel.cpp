#include "trainer/parallel/expert_parallel.h"

#include "modules/vlm/moe.h"
#include "trainer/parallel/linear_map.h"

namespace cosmos::trainer {
namespace {

using Counts = std::vector<int64_t>;

int64_t sum(const Counts& counts) {
  int64_t total = 0;
  for (const int64_t n : counts) total += n;
  return total;
}

/// Rows to each rank, in their order, for rows of each.  x: [sum of `give`, D] -> [sum of `take`,
/// D]
Tensor exchange_rows(const Tensor& x, const Counts& give, const Counts& take, const Group& group,
                     ExpertTraffic& traffic) {
  const Tensor mine = x.contiguous();
  const Tensor out = torch::empty({sum(take), x.size(1)}, x.options());
  std::vector<Message> send, receive;
  int64_t from = 0, to = 0;
  for (int64_t r = 0; r < group.size(); ++r) {
    const Tensor given = mine.narrow(0, from, give[r]), taken = out.narrow(0, to, take[r]);
    from += give[r];
    to += take[r];
    if (r == group.rank()) {
      taken.copy_(given);
      continue;
    }
    if (give[r] > 0) send.push_back({given, r});
    if (take[r] > 0) receive.push_back({taken, r});
    traffic.bytes += static_cast<int64_t>(given.nbytes());
  }
  if (!send.empty() || !receive.empty()) group.exchange(send, receive).wait();
  return out;
}

class AllToAllDispatch : public modules::ExpertDispatch {
 public:
  AllToAllDispatch(const Group& group, std::shared_ptr<ExpertTraffic> traffic)
      : group_(group), traffic_(std::move(traffic)) {}

  Tensor run(const Tensor& x, const Counts& counts, modules::ExpertsImpl& experts) override {
    const int64_t ranks = group_.size(), here = static_cast<int64_t>(counts.size()) / ranks;
    // [source, expert here]: tokens that come, by where from and for whom.
    const Tensor all = torch::empty({ranks, static_cast<int64_t>(counts.size())}, torch::kInt64);
    group_.all_gather(torch::tensor(counts), all).wait();
    const Tensor coming = all.narrow(1, group_.rank() * here, here);
    const Counts give = to_counts(torch::tensor(counts).view({ranks, here}).sum(1));
    const Counts take = to_counts(coming.sum(1));

    const Tensor there = exchange(x, give, take);
    const Tensor order = by_expert(coming).to(x.device());
    const Tensor out = experts.forward(there.index_select(0, order), to_counts(coming.sum(0)));
    const Tensor by_source = torch::zeros_like(out).index_copy(0, order, out);
    return exchange(by_source, take, give);
  }

 private:
  static Counts to_counts(const Tensor& x) {
    const Tensor flat = x.contiguous();
    return {flat.data_ptr<int64_t>(), flat.data_ptr<int64_t>() + flat.numel()};
  }

  /// Rows that lie by source and then expert, in the order of experts and then sources.
  static Tensor by_expert(const Tensor& coming) {
    const Tensor flat = coming.flatten();
    const Tensor begin = (flat.cumsum(0) - flat).view(coming.sizes());
    Tensors runs;
    for (int64_t e = 0; e < coming.size(1); ++e)
      for (int64_t s = 0; s < coming.size(0); ++s) {
        const int64_t first = begin[s][e].item<int64_t>();
        runs.push_back(torch::arange(first, first + coming[s][e].item<int64_t>()));
      }
    return torch::cat(runs);
  }

  Tensor exchange(const Tensor& x, const Counts& give, const Counts& take) const {
    const auto rows = [group = &group_, traffic = traffic_](const Counts& give,
                                                            const Counts& take) {
      return [=](const Tensor& y) { return exchange_rows(y, give, take, *group, *traffic); };
    };
    return apply_linear(rows(give, take), rows(take, give), x);
  }

  const Group& group_;
  std::shared_ptr<ExpertTraffic> traffic_;
};

}  // namespace

TensorSlices expert_slices(const modules::Model& model, int64_t ranks) {
  TensorSlices slices;
  if (ranks == 1) return slices;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    const auto* experts = dynamic_cast<const modules::ExpertsImpl*>(item.value().get());
    if (!experts) continue;
    for (const auto& stack : experts->stacks())
      require(!stack.adapter, "trainer.parallel.expert: got ", ranks, ", but ", item.key(), ".",
              stack.name,
              " is in lora.target_parameters; expected 1 rank, or no adapters of experts");
    const int64_t count = experts->gate_up_proj.size(0);
    require(count % ranks == 0, "trainer.parallel.expert: ", ranks, " ranks do not divide the ",
            count, " experts of ", item.key(), "; choose a divisor of ", count);
    for (const auto& parameter : item.value()->named_parameters())
      slices[item.key() + "." + parameter.key()] = {
          .dim = 0, .whole = parameter.value().sizes().vec(), .axis = "expert"};
  }
  require(!slices.empty(), "trainer.parallel.expert: got ", ranks, ", but ", model.class_name(),
          " has no experts; set it to 1");
  return slices;
}

ExpertParallel::ExpertParallel(const modules::Model& model, const Group& group)
    : traffic_(std::make_shared<ExpertTraffic>()), slices_(expert_slices(model, group.size())) {
  take_slices(model, slices_, group);
  const auto dispatch = std::make_shared<AllToAllDispatch>(group, traffic_);
  for (const auto& item : model.named_modules("", /*include_self=*/false))
    if (auto* block = dynamic_cast<modules::SparseMoeBlockImpl*>(item.value().get()))
      block->set_dispatch(dispatch);
}

}  // namespace cosmos::trainer
