// The arguments of every command that takes a job.
#pragma once

#include <CLI/App.hpp>

#include "cli/planning.h"

namespace steelyard::cli {

// `with_nodes`: a command that takes several numbers of nodes has its own --nodes.
void add_job_options(CLI::App& command, JobWords& words, bool with_nodes = true);

}  // namespace steelyard::cli
