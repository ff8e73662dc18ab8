// What a tier of machines is bought for: tiers/NAME.toml.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "catalog/catalog.h"
#include "facts/ratio.h"

namespace steelyard::catalog {

// Errors: a name that no file has; a file that is not as docs/ratio.md says.
[[nodiscard]] Result<facts::TierMix> tier_mix(const Catalog& catalog, std::string_view name);
// The names, sorted.
[[nodiscard]] std::vector<std::string> tier_names(const Catalog& catalog);

}  // namespace steelyard::catalog
