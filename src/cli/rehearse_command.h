// `steelyard rehearse`.
#pragma once

#include "cli/command.h"

namespace steelyard::cli {

void add_rehearse(CLI::App& tree, Session& session);

}  // namespace steelyard::cli
