// What `steelyard rehearse --generate` and `--checkpoint` write as JSON, and its schemas.
#pragma once

#include "facts/checkpoint_run.h"
#include "facts/generated_run.h"
#include "facts/value.h"

namespace steelyard::codec {

[[nodiscard]] facts::Value to_value(const facts::GeneratedRun& run);  // steelyard.generated/1
[[nodiscard]] facts::Value generated_schema();
[[nodiscard]] facts::Value to_value(const facts::CheckpointRun& run);  // steelyard.checkpoint-run/1
[[nodiscard]] facts::Value checkpoint_run_schema();

}  // namespace steelyard::codec
