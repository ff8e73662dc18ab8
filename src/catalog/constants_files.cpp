#include <fmt/format.h>

#include "catalog/catalog.h"
#include "catalog/constants.h"
#include "catalog/files.h"
#include "catalog/merge.h"

namespace steelyard::catalog {
namespace {

constexpr int kLongestChain = 8;  // of profiles that extend one another

// The profile's table laid over the one it extends.
Result<facts::Value> extended(Files& files, const std::string& name, int depth) {
  const std::string relative = fmt::format("frameworks/{}.toml", name);
  STEELYARD_TRY(content, files.read(relative));
  facts::Value own{facts::Object{}};
  std::string base_name;
  if (const facts::Object* members = content->as_object()) {
    for (const auto& [key, value] : *members) {
      if (key == "extends" && value.as_text() != nullptr) {
        base_name = *value.as_text();
      } else {
        own.set(key, value);
      }
    }
  }
  if (base_name.empty()) return own;
  if (depth >= kLongestChain) {
    return fail(Error{.code = ErrorCode::bad_input,
                      .subject = "extends",
                      .found = "a chain without end",
                      .accepted = "the name of a profile that does not extend this one",
                      .file = (files.folder() / relative).string()});
  }
  STEELYARD_TRY(base, extended(files, base_name, depth + 1));
  merge(base, own);
  return base;
}

}  // namespace

Result<facts::Constants> Catalog::constants(facts::Framework framework) const {
  facts::Constants constants;
  const std::string name(facts::name_of(framework));
  STEELYARD_TRY(table, extended(*files_, name, 0));
  STEELYARD_TRY(profile, profile_from(table, name, folder_ / "frameworks" / (name + ".toml")));
  constants.framework = std::move(profile);

  const std::filesystem::path folder = folder_ / "calibration";
  STEELYARD_TRY(device, files_->read("calibration/device_memory.toml"));
  STEELYARD_TRY(device_memory, device_memory_from(*device, folder / "device_memory.toml"));
  constants.device_memory = std::move(device_memory);
  STEELYARD_TRY(pace, files_->read("calibration/pace.toml"));
  STEELYARD_TRY(efficiency, efficiency_from(*pace, folder / "pace.toml"));
  constants.efficiency = std::move(efficiency);
  STEELYARD_TRY(host, files_->read("calibration/host.toml"));
  STEELYARD_TRY(host_constants, host_from(*host, folder / "host.toml"));
  constants.host = std::move(host_constants);
  return constants;
}

}  // namespace steelyard::catalog
