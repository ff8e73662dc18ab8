#include "catalog/gpu_match.h"

#include <cmath>

#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

// Drivers before 470 print "A100-SXM4-40GB", later ones "NVIDIA A100-SXM4-40GB".
std::string_view without_maker(std::string_view name) {
  constexpr std::string_view kMaker = "NVIDIA ";
  return name.starts_with(kMaker) ? name.substr(kMaker.size()) : name;
}

// What the driver keeps for itself and how a maker rounds: 81,559 MiB of "80 GB" and 79.2 GiB that
// programs see are one card, 10 and 12 GB are not.
bool alike(Bytes a, Bytes b) {
  constexpr double kApart = 0.06;
  return std::abs((a / b).value() - 1.0) <= kApart;
}

}  // namespace

Result<std::optional<facts::Gpu>> gpu_of_driver(const Catalog& catalog, std::string_view name,
                                                std::optional<Bytes> memory) {
  STEELYARD_TRY(file, codec::read_value(catalog.folder() / "driver_names.json"));
  const facts::Value* names = file.find("names");
  const facts::Object* all = names == nullptr ? nullptr : names->as_object();
  if (all == nullptr) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "names",
                 .found = "nothing",
                 .accepted = "a table of names and ids of gpus.json",
                 .file = (catalog.folder() / "driver_names.json").string()});
  }
  for (const auto& [known, id] : *all) {
    if (without_maker(known) != without_maker(name) || id.as_text() == nullptr) continue;
    STEELYARD_TRY(gpu, catalog.gpu(*id.as_text()));
    if (memory && gpu.memory && !alike(*memory, *gpu.memory)) continue;
    return std::optional(std::move(gpu));
  }
  return std::optional<facts::Gpu>();
}

}  // namespace steelyard::catalog
