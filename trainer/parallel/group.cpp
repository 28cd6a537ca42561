#include "trainer/parallel/group.h"

#include <algorithm>
#include <set>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <utility>

#include "trainer/parallel/transport.h"

namespace cosmos::trainer {
namespace {

/// An exception's text on one line, without the source position that Gloo puts in front.
std::string reason_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  text = text.substr(0, text.find('\n'));
  if (text.starts_with("[")) {
    const std::size_t end = text.find("] ");
    if (end != std::string::npos && text.substr(0, end).find('/') != std::string::npos)
      text.erase(0, end + 2);
  }
  return text;
}

/// run(), its failure as an Error that begins with `what`.
template <typename Run>
auto or_fail(const std::string& what, Run run) {
  try {
    return run();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail(what, ": expected every rank's answer in time, got: ", reason_of(error),
         "; look for the rank that failed first");
  }
}

/// Null for the group of one, whose result is there at once.
class LocalTransport : public Transport {
 public:
  Work all_gather(const Tensor& in, const Tensor& out) override { return copy(in, out); }
  Work reduce_scatter(const Tensor& in, const Tensor& out) override { return copy(in, out); }
  Work all_reduce(const Tensor&, Group::Reduce) override { return {}; }
  Work broadcast(const Tensor&, int64_t) override { return {}; }
  Work all_to_all(const Tensor& in, const Tensor& out) override { return copy(in, out); }
  Work exchange(const std::vector<Message>& send, const std::vector<Message>& receive) override {
    require(send.size() == receive.size(), "expected as many messages received as sent, got ",
            receive.size(), " and ", send.size());
    for (std::size_t i = 0; i < send.size(); ++i) copy(send[i].x, receive[i].x);
    return {};
  }
  std::shared_ptr<Transport> subgroup(const std::string&, const std::vector<int64_t>&) override {
    return local_transport();
  }

 private:
  static Work copy(const Tensor& in, const Tensor& out) {
    if (in.data_ptr() != out.data_ptr()) out.copy_(in);
    return {};
  }
};

Tensor flat(const std::string& what, const Tensor& x) {
  require(x.is_contiguous(), what, ": expected a contiguous tensor, got strides ", x.strides(),
          " of shape ", x.sizes(), "; call contiguous() first");
  return x.detach().view(-1);
}

/// `parts` is the whole, `part` one rank's share of it.
void check_parts(const std::string& what, const Tensor& part, const Tensor& whole, int64_t size) {
  require(whole.numel() == size * part.numel() && whole.dtype() == part.dtype(), what,
          ": expected ", size, " times ", part.numel(), " elements of ", part.dtype(), ", got ",
          whole.numel(), " of ", whole.dtype(), "; pad the shards to one size");
}

}  // namespace

std::shared_ptr<Transport> local_transport() {
  return std::make_shared<LocalTransport>();
}

Pending::Pending() = default;
Pending::Pending(c10::intrusive_ptr<c10d::Work> work, std::string what, GroupObserver* observer,
                 int64_t number)
    : work_(std::move(work)), what_(std::move(what)), observer_(observer), number_(number) {}
Pending::~Pending() = default;
Pending::Pending(Pending&&) noexcept = default;
Pending& Pending::operator=(Pending&&) noexcept = default;
Pending::operator bool() const {
  return work_.defined();
}

void Pending::wait() {
  const c10::intrusive_ptr<c10d::Work> work = std::move(work_);
  work_.reset();
  if (observer_) observer_->waiting(number_);
  if (!work) {
    if (observer_) std::exchange(observer_, nullptr)->finished(number_);
    return;
  }
  const bool done = or_fail(what_, [&] { return work->wait(); });
  if (observer_) std::exchange(observer_, nullptr)->finished(number_);
  require(done, what_, ": expected it to complete, got an abort; look for the rank that failed ",
          "first");
}

Group::Group(std::string name, int64_t rank, int64_t size, std::shared_ptr<Transport> transport)
    : name_(std::move(name)), rank_(rank), size_(size), transport_(std::move(transport)) {
  require(rank_ >= 0 && rank_ < size_, "group ", name_, ": expected a rank below ", size_, ", got ",
          rank_);
}

Group::Group(std::string name) : Group(std::move(name), 0, 1, local_transport()) {}

std::string Group::describe(const char* operation) const {
  return "group " + name_ + ": " + operation + ": rank " + std::to_string(rank_) + " of " +
         std::to_string(size_);
}

/// Starts an operation on `bytes` of input, with its errors worded now or when it is waited for.
template <typename Start>
Pending Group::start(const char* operation, std::size_t bytes, Start start_it) const {
  const std::string what = describe(operation);
  const int64_t number =
      observer_ ? observer_->started(name_, operation, static_cast<int64_t>(bytes)) : 0;
  return Pending(or_fail(what, [&] { return start_it(what); }), what, observer_.get(), number);
}

Pending Group::all_gather(const Tensor& in, const Tensor& out) const {
  return start("all_gather", in.nbytes(), [&](const std::string& what) {
    check_parts(what, in, out, size_);
    return transport_->all_gather(flat(what, in), flat(what, out));
  });
}

Pending Group::reduce_scatter(const Tensor& in, const Tensor& out) const {
  return start("reduce_scatter", in.nbytes(), [&](const std::string& what) {
    check_parts(what, out, in, size_);
    return transport_->reduce_scatter(flat(what, in), flat(what, out));
  });
}

Pending Group::all_reduce(const Tensor& x, Reduce op) const {
  return start("all_reduce", x.nbytes(),
               [&](const std::string& what) { return transport_->all_reduce(flat(what, x), op); });
}

Pending Group::broadcast(const Tensor& x, int64_t source) const {
  return start("broadcast", x.nbytes(), [&](const std::string& what) {
    require(source >= 0 && source < size_, what, ": expected a source below ", size_, ", got ",
            source);
    return transport_->broadcast(flat(what, x), source);
  });
}

Pending Group::all_to_all(const Tensor& in, const Tensor& out) const {
  return start("all_to_all", in.nbytes(), [&](const std::string& what) {
    require(in.numel() == out.numel() && in.numel() % size_ == 0 && in.dtype() == out.dtype(), what,
            ": expected as much to receive as to send, in ", size_, " equal parts, got ",
            in.numel(), " elements of ", in.dtype(), " and ", out.numel(), " of ", out.dtype());
    return transport_->all_to_all(flat(what, in), flat(what, out));
  });
}

Pending Group::exchange(const std::vector<Message>& send,
                        const std::vector<Message>& receive) const {
  std::size_t bytes = 0;
  for (const Message& message : send) bytes += message.x.nbytes();
  return start("exchange", bytes, [&](const std::string& what) {
    const auto flatten = [&](const std::vector<Message>& messages) {
      std::vector<Message> flattened;
      for (const Message& m : messages) {
        require(m.peer >= 0 && m.peer < size_, what, ": expected a peer below ", size_, ", got ",
                m.peer);
        flattened.push_back({.x = flat(what, m.x), .peer = m.peer});
      }
      return flattened;
    };
    return transport_->exchange(flatten(send), flatten(receive));
  });
}

void Group::barrier() const {
  const Tensor one = torch::zeros({1}, torch::kInt64);
  start("barrier", one.nbytes(), [&](const std::string&) {
    return transport_->all_reduce(one, Reduce::kSum);
  }).wait();
}

std::vector<std::string> Group::all_gather_text(const std::string& text) const {
  const auto length = static_cast<int64_t>(text.size());
  const Tensor lengths = torch::empty({size_}, torch::kInt64);
  all_gather(torch::full({1}, length, torch::kInt64), lengths).wait();
  const int64_t longest = lengths.max().item<int64_t>();
  const Tensor mine = torch::zeros({longest}, torch::kUInt8);
  std::copy(text.begin(), text.end(), mine.data_ptr<uint8_t>());
  const Tensor all = torch::empty({size_ * longest}, torch::kUInt8);
  if (longest > 0) all_gather(mine, all).wait();
  std::vector<std::string> texts;
  for (int64_t r = 0; r < size_; ++r) {
    const auto* begin = reinterpret_cast<const char*>(all.data_ptr<uint8_t>()) + r * longest;
    texts.emplace_back(begin, lengths[r].item<int64_t>());
  }
  return texts;
}

std::shared_ptr<Group> Group::subgroup(const std::string& name,
                                       const std::vector<int64_t>& ranks) const {
  const std::set<int64_t> distinct(ranks.begin(), ranks.end());
  require(distinct.size() == ranks.size() && !ranks.empty() && *distinct.begin() >= 0 &&
              *distinct.rbegin() < size_,
          "group ", name, ": expected distinct ranks below ", size_, ", got [",
          c10::IntArrayRef(ranks), "]");
  const auto me = std::find(ranks.begin(), ranks.end(), rank_);
  if (me == ranks.end()) return nullptr;
  if (ranks.size() == 1) return std::make_shared<Group>(name);  // has nobody to wait for
  const auto rank = static_cast<int64_t>(me - ranks.begin());
  const auto size = static_cast<int64_t>(ranks.size());
  const std::string what =
      "group " + name + ": set-up: rank " + std::to_string(rank) + " of " + std::to_string(size);
  auto group = std::make_shared<Group>(
      name, rank, size, or_fail(what, [&] { return transport_->subgroup(name, ranks); }));
  group->set_observer(observer_);
  return group;
}

std::shared_ptr<Group> connect(const RankEnv& env, at::Device device,
                               std::chrono::milliseconds timeout) {
  if (env.world == 1) return std::make_shared<Group>("world");
  if (device.is_cuda() && !device.has_index())
    device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(env.local_rank));
  const std::string what = "group world: rendezvous (" + env.source + ") at " + env.master_addr +
                           ":" + std::to_string(env.master_port) + ": rank " +
                           std::to_string(env.rank) + " of " + std::to_string(env.world);
  return std::make_shared<Group>("world", env.rank, env.world, or_fail(what, [&] {
                                   return c10d_transport(env, device, timeout);
                                 }));
}

}  // namespace cosmos::trainer
