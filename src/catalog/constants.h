// The constants files: catalog/frameworks/*.toml and catalog/calibration/*.toml as structs.
#pragma once

#include <filesystem>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/value.h"

namespace steelyard::catalog {

// `file` appears in messages.
[[nodiscard]] Result<facts::FrameworkProfile> profile_from(const facts::Value& table,
                                                           std::string name,
                                                           const std::filesystem::path& file);
[[nodiscard]] Result<facts::DeviceMemoryConstants> device_memory_from(
    const facts::Value& table, const std::filesystem::path& file);
// What the fit of the pace starts from: calibration/pace.toml of a catalogue, without
// calibration/pace_fitted.toml, which `steelyard calibrate` makes.
[[nodiscard]] Result<facts::EfficiencyConstants> unfitted_efficiency(
    const std::filesystem::path& folder);
[[nodiscard]] Result<facts::EfficiencyConstants> efficiency_from(const facts::Value& table,
                                                                 const std::filesystem::path& file);
[[nodiscard]] Result<facts::HostConstants> host_from(const facts::Value& table,
                                                     const std::filesystem::path& file);

}  // namespace steelyard::catalog
