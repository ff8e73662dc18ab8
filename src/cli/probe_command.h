// The command `steelyard probe`.
#pragma once

#include "cli/command.h"

namespace steelyard::cli {

void add_probe(CLI::App& tree, Session& session);

}  // namespace steelyard::cli
