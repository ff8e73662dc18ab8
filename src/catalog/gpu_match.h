// The GPU of the catalogue that a driver means by a name.
#pragma once

#include <optional>
#include <string_view>

#include "base/error.h"
#include "catalog/catalog.h"
#include "facts/machine.h"

namespace steelyard::catalog {

// By driver_names.json; `memory`, when known, must be within 6 % of the entry's, or the card is
// another variant. Nothing for a card that the catalogue does not know. Errors: the file is
// damaged.
[[nodiscard]] Result<std::optional<facts::Gpu>> gpu_of_driver(const Catalog& catalog,
                                                              std::string_view name,
                                                              std::optional<Bytes> memory);

}  // namespace steelyard::catalog
