// What happens to pieces before they are written: copied, or brought to one rank.

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fcntl.h>
#include <fstream>
#include <unistd.h>

#include "modules/hub/json_file.h"
#include "trainer/checkpoint/writer.h"
#include "trainer/parallel/group.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;

void Staging::take(StateFiles& files) {
  const torch::NoGradGuard no_grad;
  std::optional<c10::Device> device;
  for (auto& [path, file] : files)
    for (auto& [name, piece] : file.tensors) {
      if (!piece.mine) continue;
      const bool gpu = !piece.data.is_cpu();
      Tensor& buffer = buffers_[path + ":" + name];
      if (!buffer.defined() || buffer.numel() != piece.data.numel() ||
          buffer.scalar_type() != piece.info.dtype)
        buffer = torch::empty({piece.data.numel()},
                              torch::TensorOptions(piece.info.dtype).pinned_memory(gpu));
      buffer.view(piece.data.sizes()).copy_(piece.data, /*non_blocking=*/gpu);
      if (gpu) device = piece.data.device();
      piece.data = buffer;
    }
  if (!device) return;
  copied_ = std::make_shared<c10::Event>(device->type());
  copied_->record(c10::impl::VirtualGuardImpl(device->type()).getStream(*device));
}

void Staging::wait() {
  if (copied_) copied_->synchronize();
  copied_.reset();
}

int64_t Staging::bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, buffer] : buffers_) bytes += static_cast<int64_t>(buffer.nbytes());
  return bytes;
}

namespace {

/// Every rank's region of every tensor of the file, by tensor name.
std::map<std::string, std::vector<Region>> all_regions(const StateFile& file, const Group& world) {
  Json mine = Json::object();
  for (const auto& [name, piece] : file.tensors)
    mine[name] = {piece.region.offset, piece.region.size};
  std::map<std::string, std::vector<Region>> regions;
  for (const std::string& text : world.all_gather_text(mine.dump())) {
    const Json theirs = Json::parse(text);
    for (const auto& [name, pair] : theirs.items())
      regions[name].push_back(
          {pair[0].get<std::vector<int64_t>>(), pair[1].get<std::vector<int64_t>>()});
  }
  return regions;
}

/// The whole tensor, on every rank.
Tensor gather_piece(const Piece& piece, const std::vector<Region>& regions, const Group& world) {
  int64_t longest = 0;
  for (const Region& region : regions) longest = std::max(longest, region.numel());
  const auto bytes = static_cast<int64_t>(c10::elementSize(piece.info.dtype));
  const Tensor mine = torch::zeros({longest * bytes}, torch::kUInt8);
  const Tensor flat = piece.data.to(torch::kCPU, piece.info.dtype).contiguous().view({-1});
  if (flat.numel() > 0) mine.narrow(0, 0, flat.numel() * bytes).copy_(flat.view(torch::kUInt8));
  const Tensor all = torch::empty({world.size(), longest * bytes}, torch::kUInt8);
  if (longest > 0) world.all_gather(mine, all).wait();
  const Tensor whole = torch::empty(piece.info.shape, piece.info.dtype);
  for (int64_t r = 0; r < world.size(); ++r) {
    const Region& region = regions[r];
    if (region.numel() > 0)
      region_of(whole, region)
          .copy_(
              all[r].narrow(0, 0, region.numel() * bytes).view(piece.info.dtype).view(region.size));
  }
  return whole;
}

}  // namespace

void gather_to_writers(StateFiles& files, const Group& world) {
  const torch::NoGradGuard no_grad;
  int64_t number = 0;
  for (auto& [path, file] : files) {
    const bool mine = number++ % world.size() == world.rank();
    file.head_mine = mine;
    const auto regions = all_regions(file, world);
    for (auto& [name, piece] : file.tensors) {
      const Tensor whole = gather_piece(piece, regions.at(name), world);
      piece.mine = mine;
      piece.region = whole_region(piece.info.shape);
      piece.data = mine ? whole : Tensor();
    }
  }
}

bool shared_writes_work(const fs::path& dir, const Group& world) {
  constexpr std::size_t kPart = 1000;  // ranks meet within pages
  const fs::path file = dir / ".tmp-probe";
  const auto size = kPart * static_cast<std::size_t>(world.size());
  const auto content = [&] {
    std::string text(size, '\0');
    std::ifstream(file, std::ios::binary).read(text.data(), static_cast<std::streamsize>(size));
    return text;
  };
  bool good = true;
  if (world.rank() == 0) {
    std::error_code ignored;  // the save itself will say what is wrong with the folder
    fs::create_directories(dir, ignored);
    good = static_cast<bool>(std::ofstream(file, std::ios::binary) << std::string(size, '-'));
  }
  world.barrier();
  content();  // into this machine's cache, where it is about to be out of date
  world.barrier();
  const std::string part(kPart, static_cast<char>('a' + world.rank() % 26));
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  good = good && fd >= 0 &&
         ::pwrite(fd, part.data(), kPart, static_cast<off_t>(kPart * world.rank())) == kPart &&
         ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  world.barrier();
  std::string expected;
  for (int64_t r = 0; r < world.size(); ++r)
    expected.append(kPart, static_cast<char>('a' + r % 26));
  good = good && content() == expected;
  const Tensor bad = torch::full({1}, good ? 0.0 : 1.0);
  world.all_reduce(bad, Group::Reduce::kMax).wait();
  std::error_code ignored;
  if (world.rank() == 0) fs::remove(file, ignored);
  return bad.item<float>() == 0;
}

}  // namespace cosmos::trainer
