// The only file that sees c10d's backends and, through them, Gloo's and NCCL's headers.

#include <algorithm>
#include <cstdlib>
#include <map>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef USE_C10D_NCCL
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "trainer/parallel/gloo_interface.h"
#include "trainer/parallel/transport.h"

namespace cosmos::trainer {
namespace {

using std::chrono::milliseconds;
using Store = c10::intrusive_ptr<c10d::Store>;
using Backend = c10::intrusive_ptr<c10d::Backend>;

/// What all groups of a process share.
struct Shared {
  RankEnv env;
  at::Device device;
  milliseconds timeout;
};

Store prefixed(const std::string& prefix, const Store& store) {
  return c10::make_intrusive<c10d::PrefixStore>(prefix, store);
}

Store make_store(const Shared& shared) {
  const RankEnv& env = shared.env;
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(env.master_port);
  options.isServer = env.rank == 0 && env.agent_prefix.empty();
  options.numWorkers = static_cast<std::size_t>(env.world);
  options.waitWorkers = env.agent_prefix.empty();
  options.timeout = shared.timeout;
  Store store = c10::make_intrusive<c10d::TCPStore>(env.master_addr, options);
  return env.agent_prefix.empty() ? store : prefixed(env.agent_prefix, store);
}

#ifdef USE_C10D_GLOO
Backend make_gloo(const Shared& shared, const Store& store, int rank, int size) {
  using Gloo = c10d::ProcessGroupGloo;
  const char* chosen = std::getenv("GLOO_SOCKET_IFNAME");
  c10::intrusive_ptr<Gloo::Options> options;
  if (chosen != nullptr && *chosen != '\0') {
    options = Gloo::Options::create_default(shared.timeout);
  } else {
    options = Gloo::Options::create(shared.timeout);
    options->devices.push_back(Gloo::createDeviceForHostname(address_towards_rank_0(shared.env)));
  }
  // One thread runs operations in the order of the calls. With more they overlap, and the error
  // that comes first need not be the cause.
  options->threads = 1;
  return c10::make_intrusive<Gloo>(store, rank, size, options);
}
#else
Backend make_gloo(const Shared&, const Store&, int, int) {
  fail(
      "several ranks: expected a build with Gloo, got one without; install libgloo-dev and "
      "configure again");
}
#endif

#ifdef USE_C10D_NCCL
Backend make_nccl(const Shared& shared, const Store& store, int rank, int size) {
  const c10::cuda::CUDAGuard guard(shared.device);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = shared.timeout;
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
  // Communicators now, so that ranks that cannot reach each other say so before the first step.
  backend->setBoundDeviceId(shared.device);
  backend->eagerConnectSingleDevice(shared.device);
  return backend;
}
#else
Backend make_nccl(const Shared&, const Store&, int, int) {
  fail(
      "several ranks on GPUs: expected a build with NCCL, got one without; configure with the "
      "preset cuda and nccl.h in reach");
}
#endif

/// Tells apart the groups that are made of one parent: the same on all members of one, since they
/// make groups of the same name and ranks equally often.
std::string group_key(const std::string& name, const std::vector<int64_t>& ranks, int64_t times) {
  uint64_t hash = 14695981039346656037ULL;  // FNV-1a: the list is long in a large world
  for (const int64_t rank : ranks) hash = (hash ^ static_cast<uint64_t>(rank)) * 1099511628211ULL;
  return name + "/" + std::to_string(ranks.front()) + "/" + std::to_string(hash) + "/" +
         std::to_string(times);
}

/// Several operations as one.
class AllOf : public c10d::Work {
 public:
  explicit AllOf(std::vector<Transport::Work> parts) : parts_(std::move(parts)) {}
  bool wait(milliseconds timeout) override {
    bool done = true;
    for (const Transport::Work& part : parts_) done &= part->wait(timeout);
    return done;
  }

 private:
  std::vector<Transport::Work> parts_;
};

class C10dTransport : public Transport {
 public:
  C10dTransport(std::shared_ptr<const Shared> shared, Store store, int64_t rank, int64_t size)
      : shared_(std::move(shared)), store_(std::move(store)), rank_(rank) {
    const auto r = static_cast<int>(rank), s = static_cast<int>(size);
    // On GPUs, too: barriers and text go through the CPU.
    cpu_ = make_gloo(*shared_, prefixed("gloo", store_), r, s);
    if (shared_->device.is_cuda()) cuda_ = make_nccl(*shared_, prefixed("nccl", store_), r, s);
  }

  Work all_gather(const Tensor& in, const Tensor& out) override {
    Tensor from = in, to = out;
    return backend(in)._allgather_base(to, from);
  }
  Work reduce_scatter(const Tensor& in, const Tensor& out) override {
    Tensor from = in, to = out;
    return backend(in)._reduce_scatter_base(to, from);
  }
  Work all_reduce(const Tensor& x, Group::Reduce op) override {
    Tensors tensors{x};
    c10d::AllreduceOptions options;
    if (op == Group::Reduce::kMax) options.reduceOp = c10d::ReduceOp::MAX;
    return backend(x).allreduce(tensors, options);
  }
  Work broadcast(const Tensor& x, int64_t source) override {
    Tensors tensors{x};
    c10d::BroadcastOptions options;
    options.rootRank = source;
    return backend(x).broadcast(tensors, options);
  }
  Work all_to_all(const Tensor& in, const Tensor& out) override {
    Tensor from = in, to = out;
    std::vector<int64_t> equal;
    return backend(in).alltoall_base(to, from, equal, equal);
  }
  Work exchange(const std::vector<Message>& send, const std::vector<Message>& receive) override {
    if (send.empty() && receive.empty()) return {};
    c10d::Backend& with = backend(send.empty() ? receive[0].x : send[0].x);
    // NCCL would run them one after another, and two ranks that both send first wait for ever.
    const bool together = &with == cuda_.get() && with.supportsCoalescing();
    if (together) with.startCoalescing();
    std::vector<Work> parts;
    for (const Message& m : receive) {
      Tensors tensors{m.x};
      parts.push_back(with.recv(tensors, static_cast<int>(m.peer), received_[m.peer]++));
    }
    for (const Message& m : send) {
      Tensors tensors{m.x};
      parts.push_back(with.send(tensors, static_cast<int>(m.peer), sent_[m.peer]++));
    }
    if (together) return with.endCoalescing();
    return c10::make_intrusive<AllOf>(std::move(parts));
  }
  std::shared_ptr<Transport> subgroup(const std::string& name,
                                      const std::vector<int64_t>& ranks) override {
    const auto me = std::find(ranks.begin(), ranks.end(), rank_) - ranks.begin();
    const std::string key = group_key(name, ranks, times_[{name, ranks}]++);
    return std::make_shared<C10dTransport>(shared_, prefixed(key, store_), me, ranks.size());
  }

 private:
  c10d::Backend& backend(const Tensor& x) const {
    require(x.is_cpu() || cuda_, "group on ", shared_->device, ": got a tensor on ", x.device());
    return x.is_cpu() ? *cpu_ : *cuda_;
  }

  std::shared_ptr<const Shared> shared_;
  Store store_;
  int64_t rank_;
  Backend cpu_, cuda_;
  std::map<std::pair<std::string, std::vector<int64_t>>, int64_t> times_;
  std::map<int64_t, int> sent_, received_;  ///< messages by peer: what Gloo tells them apart by
};

}  // namespace

std::shared_ptr<Transport> c10d_transport(const RankEnv& env, at::Device device,
                                          milliseconds timeout) {
  auto shared = std::make_shared<const Shared>(Shared{env, device, timeout});
  return std::make_shared<C10dTransport>(shared, prefixed("world", make_store(*shared)), env.rank,
                                         env.world);
}

}  // namespace cosmos::trainer
