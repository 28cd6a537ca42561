#include "trainer/report/tensorboard.h"

#include <chrono>
#include <unistd.h>

#include "ops/core/error.h"
#include "trainer/checkpoint/crc32c.h"

namespace cosmos::trainer {
namespace {

// Protobuf wire format. Field numbers are those of tensorflow/core/util/event.proto and
// tensorflow/core/framework/summary.proto.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  out += static_cast<char>(value);
}

void put_key(std::string& out, uint64_t field, WireType type) {
  put_varint(out, field << 3 | type);
}

template <typename T>
void put_raw(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_bytes(std::string& out, uint64_t field, const std::string& bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Event { double wall_time = 1; int64 step = 2; ... }
std::string start_event(int64_t step) {
  std::string event;
  put_key(event, 1, kFixed64);
  put_raw(event, wall_time());
  put_key(event, 2, kVarint);
  put_varint(event, static_cast<uint64_t>(step));
  return event;
}

// Checksums are stored rotated and offset, so that a record which holds checksums stays checkable.
uint32_t masked_crc(const void* data, std::size_t size) {
  const uint32_t crc = crc32c(data, size);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& dir, int64_t step) {
  std::filesystem::create_directories(dir);
  // TensorBoard reads files in the order of their names: start time, then process.
  const auto path =
      dir / ("events.out.tfevents." + std::to_string(static_cast<int64_t>(wall_time() * 1000)) +
             "." + std::to_string(::getpid()));
  file_.open(path, std::ios::binary);
  require(file_.good(), path.string(), ": cannot be written");
  std::string version = start_event(0);
  put_bytes(version, 3, "brain.Event:2");
  write_record(version);
  if (step > 0) {
    std::string session;  // SessionLog { SessionStatus status = 1; }, START = 1
    put_key(session, 1, kVarint);
    put_varint(session, 1);
    std::string start = start_event(step + 1);
    put_bytes(start, 7, session);
    write_record(start);
  }
  file_.flush();
}

bool EventFile::write(int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary;  // Summary { repeated Value value = 1; }
  for (const Scalar& scalar : scalars) {
    std::string value;  // Value { string tag = 1; float simple_value = 2; }
    put_bytes(value, 1, scalar.tag);
    put_key(value, 2, kFixed32);
    put_raw(value, scalar.value);
    put_bytes(summary, 1, value);
  }
  std::string event = start_event(step);
  put_bytes(event, 5, summary);
  write_record(event);
  file_.flush();
  const bool good = file_.good();
  file_.clear();
  return good;
}

// uint64 length; uint32 masked crc of length; bytes; uint32 masked crc of bytes. Little-endian.
void EventFile::write_record(const std::string& event) {
  std::string record;
  put_raw(record, static_cast<uint64_t>(event.size()));
  put_raw(record, masked_crc(record.data(), sizeof(uint64_t)));
  record += event;
  put_raw(record, masked_crc(event.data(), event.size()));
  file_.write(record.data(), static_cast<std::streamsize>(record.size()));
}

}  // namespace cosmos::trainer
