// The first header of the room: what other tools already have, as a job of this project.
#pragma once

#include <filesystem>

#include "base/error.h"
#include "facts/job.h"
#include "facts/value.h"

namespace steelyard::exchange {

// The job with what its [import] brings: the keys that the job itself does not say, with
// Origin::import, and the model as an object of configuration keys when model.config is absent.
// Paths are relative to `folder`; `megatron_table` is catalog/import/megatron.toml. A job that
// imports nothing comes back as it is.
//
// Errors name the argument ("import.megatron.num-layers"): unknown_name with the nearest known one,
// not_supported for what changes memory or time by rules that are not built, bad_input for values.
[[nodiscard]] Result<facts::Job> imported(facts::Job job, const std::filesystem::path& folder,
                                          const facts::Value& megatron_table);

}  // namespace steelyard::exchange
