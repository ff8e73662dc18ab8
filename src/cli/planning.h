// From a job to a plan: looks up in the catalogue what the job names. The glue that `plan`,
// `explain` and `validate` share.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "catalog/catalog.h"
#include "facts/job.h"
#include "plan/plan.h"

namespace steelyard::cli {

// What a person gives to name a job: a file, or only a few words on the command line, or both.
struct JobWords {
  std::string file;                   // empty: none
  std::vector<std::string> settings;  // "train.micro_batch=4"
  std::string model;                  // a catalogue id or a config.json; empty: the file's
  std::string machine;                // empty: the file's
  std::string gpu;                    // empty: the file's
  std::optional<std::int64_t> gpus, nodes;
};

struct ReadJob {
  facts::Job job;
  std::filesystem::path folder;  // what the job's paths are relative to
  std::string file{};            // the job file; empty: the command line alone
};

// Errors: no file and no model; everything codec::read_job refuses.
[[nodiscard]] Result<ReadJob> read_job(const JobWords& words);

[[nodiscard]] Result<plan::Request> request_of(const ReadJob& read,
                                               const catalog::Catalog& catalog);

// The error with the line of the job file that wrote its key, when one did: the rooms behind the
// codec know keys, not files.
[[nodiscard]] Error placed(Error error, const ReadJob& read);

}  // namespace steelyard::cli
