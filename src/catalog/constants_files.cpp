#include "catalog/catalog.h"
#include "catalog/constants.h"
#include "catalog/files.h"
#include "catalog/framework_file.h"
#include "catalog/merge.h"
#include "catalog/profile_names.h"
#include "codec/codec.h"
#include "codec/evidence.h"

namespace steelyard::catalog {

Result<facts::EfficiencyConstants> unfitted_efficiency(const std::filesystem::path& folder) {
  Files files(folder);
  STEELYARD_TRY(pace, files.read("calibration/pace.toml"));
  return efficiency_from(*pace, folder / "calibration" / "pace.toml");
}

Result<facts::Constants> Catalog::constants(std::string_view framework,
                                            const facts::Value& versions) const {
  facts::Constants constants;
  const std::string name(framework);
  STEELYARD_CHECK(known_name(folder_, {.kind = "frameworks",
                                       .name = name,
                                       .subject = "framework",
                                       .hint = "another one is a file more beside these"}));
  STEELYARD_TRY(table, framework_table(*files_, name, versions));
  STEELYARD_TRY(profile, profile_from(table, name, folder_ / "frameworks" / (name + ".toml")));
  constants.framework = std::move(profile);

  const std::filesystem::path folder = folder_ / "calibration";
  STEELYARD_TRY(device, files_->read("calibration/device_memory.toml"));
  STEELYARD_TRY(device_memory, device_memory_from(*device, folder / "device_memory.toml"));
  constants.device_memory = std::move(device_memory);
  STEELYARD_TRY(pace, files_->read("calibration/pace.toml"));
  facts::Value laid = *pace;
  if (std::filesystem::exists(folder / "pace_fitted.toml")) {
    STEELYARD_TRY(fitted, files_->read("calibration/pace_fitted.toml"));
    merge(laid, *fitted);
  }
  STEELYARD_TRY(efficiency, efficiency_from(laid, folder / "pace.toml"));
  constants.efficiency = std::move(efficiency);
  STEELYARD_TRY(host, files_->read("calibration/host.toml"));
  STEELYARD_TRY(host_constants, host_from(*host, folder / "host.toml"));
  constants.host = std::move(host_constants);
  return constants;
}

Result<std::shared_ptr<const std::vector<facts::Evidence>>> Catalog::evidence() const {
  const std::string file = "confidence/measured.tsv";
  auto rows = std::make_shared<std::vector<facts::Evidence>>();
  if (!std::filesystem::exists(folder_ / file)) return rows;
  STEELYARD_TRY(text, codec::read_text(folder_ / file));
  STEELYARD_TRY(read, codec::evidence_from(text, (folder_ / file).string()));
  *rows = std::move(read);
  return rows;
}

}  // namespace steelyard::catalog
