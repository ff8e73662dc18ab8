// The parts of `steelyard rehearse` that need no training job: MLPerf Storage's presets, their data
// sets made up (--generate), their checkpoints written and read back (--checkpoint).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/command.h"
#include "facts/rehearsal.h"
#include "facts/storage_workload.h"
#include "rehearse/dataset.h"

namespace steelyard::cli {

struct StorageOptions {
  std::string preset;        // --preset unet3d/h100
  std::string generate;      // --generate FOLDER
  std::string checkpoint;    // --checkpoint llama3-8b
  std::string path = ".";    // --path: where the checkpoint goes
  std::string size;          // --size 20GiB
  std::uint64_t seed = 0;    // set by the command
  std::int64_t threads = 0;  // 0: one for each core (a checkpoint: eight)
  std::int64_t rounds = 1;
  std::int64_t accelerators = 1;  // that the data set is for; set by the command
  bool json = false;              // set by the command
};

// --preset, --generate, --checkpoint, --path, --size, --io-threads, --rounds.
void add_storage_options(CLI::App& command, StorageOptions& options);

// Whether the command is to generate or to write checkpoints instead of rehearsing a job.
[[nodiscard]] bool wants_storage(const StorageOptions& options);
[[nodiscard]] Result<ExitStatus> run_storage(const Session& session, const StorageOptions& options);

// The named preset with the rules for its data set; none when none is named.
struct Preset {
  facts::StorageWorkload workload;
  facts::StorageRules rules;
};
[[nodiscard]] Result<std::optional<Preset>> preset_of(const Session& session,
                                                      const StorageOptions& options);

// How its data set is opened: parquet in records of the preset's size, unless another is given.
[[nodiscard]] rehearse::OpenOptions opened_for(const std::optional<Preset>& preset,
                                               rehearse::OpenOptions options);
// Notes what the rules say of a rehearsal of the preset on a data set of that size.
void put_beside(const Preset& preset, Bytes dataset, facts::Rehearsal& rehearsal);

}  // namespace steelyard::cli
