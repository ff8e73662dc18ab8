// One entry of catalog/gpus.json or catalog/machines.json as facts.
#pragma once

#include <filesystem>

#include "base/error.h"
#include "facts/machine.h"
#include "facts/value.h"

namespace steelyard::catalog {

// `file` appears in messages.
[[nodiscard]] Result<facts::Gpu> gpu_from(const facts::Value& entry,
                                          const std::filesystem::path& file);

// `gpu_entry` is the entry that the machine's gpu.id names, in `gpu_file`.
[[nodiscard]] Result<facts::Machine> machine_from(const facts::Value& entry,
                                                  const std::filesystem::path& file,
                                                  const facts::Value& gpu_entry,
                                                  const std::filesystem::path& gpu_file);

}  // namespace steelyard::catalog
