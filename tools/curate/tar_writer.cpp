#include "tools/curate/tar_writer.h"

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <cerrno>
#include <fstream>

#include "ops/core/error.h"

namespace cosmos::curate {
namespace {

// Called by libarchive, which is C: an exception may not pass through it.
la_ssize_t write_bytes(archive* self, void* file, const void* bytes, std::size_t size) {
  try {
    static_cast<modules::AtomicFile*>(file)->write(bytes, size);
  } catch (const std::exception& error) {
    archive_set_error(self, EIO, "%s", error.what());
    return -1;
  }
  return static_cast<la_ssize_t>(size);
}

}  // namespace

TarWriter::TarWriter(const std::filesystem::path& path)
    : name_(path.string()), file_(path), archive_(archive_write_new()) {
  if (!archive_) throw std::bad_alloc();
  try {
    check(archive_write_set_format_pax_restricted(archive_));
    check(archive_write_set_bytes_in_last_block(archive_, 1));  // nothing behind the end's blocks
    check(archive_write_open(archive_, &file_, nullptr, write_bytes, nullptr));
  } catch (...) {
    archive_write_free(archive_);
    throw;
  }
}

TarWriter::~TarWriter() {
  archive_write_free(archive_);
}

void TarWriter::check(int code) const {
  require(code == ARCHIVE_OK, name_, ": ", archive_error_string(archive_));
}

void TarWriter::begin(const std::string& name, uint64_t size) {
  const std::unique_ptr<archive_entry, decltype(&archive_entry_free)> entry(archive_entry_new(),
                                                                            archive_entry_free);
  if (!entry) throw std::bad_alloc();
  archive_entry_set_pathname(entry.get(), name.c_str());
  archive_entry_set_filetype(entry.get(), AE_IFREG);
  archive_entry_set_perm(entry.get(), 0644);
  archive_entry_set_size(entry.get(), static_cast<la_int64_t>(size));
  check(archive_write_header(archive_, entry.get()));
}

void TarWriter::write(std::string_view bytes) {
  const la_ssize_t written = archive_write_data(archive_, bytes.data(), bytes.size());
  if (written != static_cast<la_ssize_t>(bytes.size())) check(ARCHIVE_FATAL);
}

void TarWriter::add(const std::string& name, std::string_view bytes) {
  begin(name, bytes.size());
  write(bytes);
}

void TarWriter::add_file(const std::string& name, const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  require(in.good(), path.string(), ": cannot be read");
  uint64_t left = std::filesystem::file_size(path);
  begin(name, left);
  std::string part(std::size_t{1} << 20, '\0');
  while (left > 0) {
    const auto wanted = static_cast<std::streamsize>(std::min<uint64_t>(left, part.size()));
    require(bool(in.read(part.data(), wanted)), path.string(),
            ": became shorter while it was read");
    write({part.data(), static_cast<std::size_t>(wanted)});
    left -= static_cast<uint64_t>(wanted);
  }
}

void TarWriter::commit() {
  check(archive_write_close(archive_));
  file_.commit();
}

}  // namespace cosmos::curate
