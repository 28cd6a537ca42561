#pragma once

// The zip container of torch.save (PyTorch >= 1.6) and torch.jit.save:
//   NAME/data.pkl     the pickle; tensors refer to storages by key
//   NAME/data/KEY     bytes of a storage
//   NAME/byteorder    "little" where present
//   NAME/constants.pkl, NAME/code/...   TorchScript only, not looked at

#include <string>

#include "modules/hub/pickle.h"
#include "modules/hub/zip_archive.h"

namespace cosmos::modules {

class PytorchArchive {
 public:
  PytorchArchive(FileBytes bytes, const std::string& where);

  bool is_torchscript() const { return torchscript_; }
  const PickleValue& root() const { return *pickle_.root; }
  /// The mapped bytes of a storage. Throws Error when they are not all there.
  FileBytes storage(const PickledStorage& storage) const;

 private:
  std::string where_;
  ZipArchive zip_;
  std::string prefix_;  ///< "NAME/"
  bool torchscript_ = false;
  Pickle pickle_;
};

/// Throws Error unless `bytes` are as many as `storage` has.
void check_storage(const FileBytes& bytes, const PickledStorage& storage, const std::string& where);

/// `view` of the storage that lies at `bytes`; a copy when they are not aligned to its elements.
Tensor view_of_storage(const FileBytes& bytes, const PickledTensor& view);

}  // namespace cosmos::modules
