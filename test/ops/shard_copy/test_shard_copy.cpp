// The copies around all-gather and reduce-scatter against torch's chunk and cat.
#include "ops/core/error.h"
#include "test/ops/shard_copy/shard_copy_cases.h"
#include "test/support/op_checks.h"  // after torch's headers, which have a CHECK of their own

using namespace cosmos;
using namespace cosmos::test;

namespace {

using Tensors = std::vector<at::Tensor>;
constexpr at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

/// 1 to 7 dimensions, fewer rows than ranks, no rows, empty rows, longer than a unit of work, not
/// contiguous.
Tensors random_params(at::ScalarType dtype) {
  const auto make = [&](at::IntArrayRef size) { return at::randn(size).to(dtype); };
  Tensors x{make({1}),
            make({7, 3}),
            make({5}),
            make({0, 4}),
            make({6, 0}),
            make({131, 5, 101}),
            make({2, 3, 1, 2, 1, 2, 3}),
            make({9, 4}),
            make({3, 2, 2, 2, 2}),
            make({4, 2, 3, 2})};
  x.push_back(make({5, 70}).t());
  x.push_back(make({3, 8, 2, 4}).permute({3, 1, 0, 2}));
  x.push_back(make({7, 6}).slice(1, 0, 6, 2));
  return x;
}

/// Row r: the chunks of torch.chunk with zeros below, one after the other.
at::Tensor chunked_by_torch(const Tensors& full, int64_t world, at::ScalarType dtype) {
  Tensors rows;
  for (int64_t rank = 0; rank < world; ++rank) {
    Tensors parts{at::empty({0}, dtype)};
    for (const at::Tensor& x : full) {
      const at::Tensor shard = shard_of(x, world, rank).flatten().to(dtype);
      const int64_t padding = ops::padded_shard_numel(x.sizes(), world) - shard.numel();
      parts.push_back(at::cat({shard, at::zeros({padding}, dtype)}));
    }
    rows.push_back(at::cat(parts));
  }
  return at::stack(rows);
}

Tensors shards_of(const Tensors& full, int64_t world, int64_t rank) {
  Tensors shards;
  for (const at::Tensor& x : full) shards.push_back(shard_of(x, world, rank));
  return shards;
}

Tensors like(const Tensors& list, at::ScalarType dtype) {
  Tensors made;
  for (const at::Tensor& x : list) made.push_back(at::full(x.sizes(), 7, dtype));
  return made;
}

bool equal(const Tensors& a, const Tensors& b, at::ScalarType dtype) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!at::equal(a[i], b[i].to(dtype))) return false;
  return true;
}

}  // namespace

TEST_CASE("shard chunks are those of torch.chunk", "[ops]") {
  for (int64_t n = 1; n < 12; ++n)
    for (int64_t world = 1; world < 6; ++world) {
      const at::Tensor full = at::arange(n);
      const Tensors chunks = full.chunk(world);
      for (int64_t rank = 0; rank < world; ++rank) {
        const bool exists = rank < static_cast<int64_t>(chunks.size());
        CHECK(at::equal(shard_of(full, world, rank), exists ? chunks[rank] : full.narrow(0, 0, 0)));
      }
    }
}

TEST_CASE("copies around the collectives equal torch's chunk and cat, every pair of dtypes",
          "[ops]") {
  torch::manual_seed(1);
  const ops::Isa best = ops::isa();
  for (const ops::Isa isa : {ops::Isa::kDefault, ops::Isa::kAvx2, ops::Isa::kAvx512}) {
    if (!ops::has_isa(isa)) continue;
    ops::set_isa(isa);
    for (const auto from : kTypes)
      for (const auto to : kTypes)
        for (int64_t world = 1; world <= 5; ++world) {
          INFO(from << " to " << to << ", " << world << " ranks, instruction set "
                    << static_cast<int>(isa));
          const Tensors full = random_params(from);
          const auto sizes = split_sizes(full, world);
          const at::Tensor want = chunked_by_torch(full, world, to);
          const at::Tensor gathered = at::full_like(want, 7), chunked = at::full_like(want, 7);
          for (int64_t rank = 0; rank < world; ++rank)
            ops::all_gather_copy_in(shards_of(full, world, rank), sizes, rank, gathered);
          CHECK(at::equal(gathered, want));
          ops::reduce_scatter_copy_in(full, chunked);
          CHECK(at::equal(chunked, want));
          Tensors outs = like(full, from);
          ops::all_gather_copy_out(want, outs);
          Tensors rounded;
          for (const at::Tensor& x : full) rounded.push_back(x.to(to));
          CHECK(equal(outs, rounded, from));
          for (int64_t rank = 0; rank < world; ++rank) {
            const Tensors part = shards_of(rounded, world, rank), shards = like(part, from);
            ops::reduce_scatter_copy_out(want[rank], sizes, shards);
            CHECK(equal(shards, part, from));
          }
        }
  }
  ops::set_isa(best);
}

TEST_CASE("reduced gradients are scaled and accumulated as the plain formula does", "[ops]") {
  torch::manual_seed(2);
  for (const auto from : kTypes)
    for (const auto to : kTypes) {
      INFO(from << " to " << to);
      const Tensors full = random_params(to);
      const auto sizes = split_sizes(full, 3);
      const at::Tensor flat = at::randn({3, chunked_by_torch(full, 3, to).size(1)}).to(from)[1];
      for (const bool accumulate : {false, true}) {
        Tensors ours, plain;
        for (const at::Tensor& x : shards_of(full, 3, 1)) {
          ours.push_back(x.contiguous().clone());
          plain.push_back(ours.back().clone());
        }
        ops::reduce_scatter_copy_out(flat, sizes, ours, 1.0 / 3, accumulate);
        ops::reference::reduce_scatter_copy_out(flat, sizes, plain, 1.0 / 3, accumulate);
        const auto narrow = to == at::kDouble && from != at::kDouble ? at::kDouble : to;
        for (std::size_t i = 0; i < ours.size(); ++i)
          CHECK(mismatch(ours[i], plain[i], tolerance(narrow)) == "");
      }
    }
}

TEST_CASE("a rank's copy-in leaves the other ranks' rows alone", "[ops]") {
  const Tensors full = random_params(at::kFloat);
  const at::Tensor gathered = at::full_like(chunked_by_torch(full, 4, at::kBFloat16), 7);
  ops::all_gather_copy_in(shards_of(full, 4, 2), split_sizes(full, 4), 2, gathered);
  for (const int64_t row : {0, 1, 3}) CHECK((gathered[row] == 7).all().item<bool>());
}

TEST_CASE("copies around the collectives have the same bits for any number of threads", "[ops]") {
  torch::manual_seed(3);
  Tensors full = random_params(at::kFloat);
  for (int i = 0; i < 130; ++i) full.push_back(at::randn({i % 7, 33}));  // several launches
  full.push_back(at::randn({70001, 3}));
  const at::Tensor want = chunked_by_torch(full, 3, at::kBFloat16);
  const int before = at::get_num_threads();
  for (const int threads : {1, 2, 5}) {
    at::set_num_threads(threads);
    const at::Tensor chunked = at::full_like(want, 7);
    ops::reduce_scatter_copy_in(full, chunked);
    CHECK(at::equal(chunked, want));
    const Tensors outs = like(full, at::kBFloat16);
    ops::all_gather_copy_out(chunked, outs);
    CHECK(equal(outs, full, at::kBFloat16));
  }
  at::set_num_threads(before);
}

TEST_CASE("empty lists and mixed dtypes are copied too", "[ops]") {
  ops::all_gather_copy_in({}, {}, 0, at::empty({2, 0}));
  ops::all_gather_copy_out(at::empty({2, 0}), {});
  const Tensors full{at::randn({3, 2}), at::randn({5}).to(at::kBFloat16)};
  const at::Tensor chunked = at::empty({2, 7});
  ops::reduce_scatter_copy_in(full, chunked);
  CHECK(at::equal(chunked, chunked_by_torch(full, 2, at::kFloat)));
}

TEST_CASE("copies around the collectives refuse what does not fit, with the index", "[ops]") {
  const Tensors full{at::randn({3, 2}), at::randn({5})};  // chunks of 4 and 3 for two ranks
  const at::Tensor buffer = at::empty({2, 7});
  CHECK_THROWS_WITH(ops::reduce_scatter_copy_in(full, at::empty({2, 8})),
                    Catch::Contains("expected [world, 7] for grads in 2 chunks") &&
                        Catch::Contains("got float32 [2, 8]"));
  CHECK_THROWS_WITH(ops::all_gather_copy_out(buffer, {full[0], at::randn({10}).slice(0, 0, 10, 2)}),
                    Catch::Contains("outs[1]: expected a contiguous tensor"));
  CHECK_THROWS_WITH(ops::all_gather_copy_out(buffer, {full[0], at::randn({})}),
                    Catch::Contains("outs[1]") && Catch::Contains("1 or more dimensions"));
  CHECK_THROWS_WITH(ops::all_gather_copy_in(full, {4, 3}, 0, buffer),
                    Catch::Contains("shards[0]: expected at most split_sizes[0] = 4 elements"));
  const Tensors shards = shards_of(full, 2, 0);
  CHECK_THROWS_WITH(ops::all_gather_copy_in(shards, {4, 3}, 2, buffer),
                    Catch::Contains("rank: expected 0 to 1, got 2"));
  CHECK_THROWS_WITH(ops::all_gather_copy_in(shards, {4}, 0, buffer),
                    Catch::Contains("split_sizes: expected 2 sizes as shards, got 1"));
  CHECK_THROWS_WITH(ops::reduce_scatter_copy_out(at::empty({8}), {4, 3}, shards),
                    Catch::Contains("flat: expected 7 numbers in a row"));
  CHECK_THROWS_WITH(ops::reduce_scatter_copy_out(buffer, {4, 3}, shards),
                    Catch::Contains("expected a contiguous [flat]"));
  CHECK_THROWS_AS(ops::reduce_scatter_copy_in({at::ones({3}, at::kInt)}, buffer), Error);
}
