// How a card divides into MIG instances: mig.toml.
#pragma once

#include "catalog/catalog.h"
#include "facts/share.h"

namespace steelyard::catalog {

// Errors: a card that the file does not name; a file that is not as its head says.
[[nodiscard]] Result<facts::MigTable> mig_table(const Catalog& catalog, const facts::Gpu& gpu);

}  // namespace steelyard::catalog
