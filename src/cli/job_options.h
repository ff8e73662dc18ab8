// The arguments of every command that takes a job.
#pragma once

#include <CLI/App.hpp>

#include "cli/planning.h"

namespace steelyard::cli {

void add_job_options(CLI::App& command, JobWords& words);

}  // namespace steelyard::cli
