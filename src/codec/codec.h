// The first header of the room: facts to and from JSON and TOML. Errors name file, key, line and
// what is accepted. No input crashes: sizes and depths are limited (see the limits below).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"
#include "facts/cases.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/model_table.h"
#include "facts/pace_why.h"
#include "facts/plan.h"
#include "facts/value.h"
#include "facts/what_if.h"

namespace steelyard::codec {

// A file larger than this is refused before it is read.
constexpr Bytes kLargestFile = Bytes(std::int64_t{64} << 20);
constexpr int kDeepestNesting = 64;

enum class Format { json, toml };

// Reads a whole text file: regular files up to kLargestFile, valid UTF-8.
[[nodiscard]] Result<std::string> read_text(const std::filesystem::path& file);

// `name` appears in messages.
[[nodiscard]] Result<facts::Value> parse(std::string_view text, Format format,
                                         const std::string& name);
// Format by extension: .toml is TOML, everything else JSON.
[[nodiscard]] Result<facts::Value> read_value(const std::filesystem::path& file);
[[nodiscard]] std::string to_json(const facts::Value& value, int indent = 2);

// A job file; `settings` are "train.micro_batch=4" as of --set, applied last. Origins and lines are
// recorded in Job::origins.
[[nodiscard]] Result<facts::Job> read_job(const std::filesystem::path& file,
                                          std::span<const std::string> settings = {});
// The same from a value already parsed; `name` appears in messages.
[[nodiscard]] Result<facts::Job> job_from(const facts::Value& value, const std::string& name,
                                          std::span<const std::string> settings = {});
// Each key as {"value": ..., "origin": "job"}, as in the plan.
[[nodiscard]] facts::Value to_value(const facts::Job& job);
// The resolved job as TOML with an origin comment behind each key: `steelyard explain`.
[[nodiscard]] std::string explained(const facts::Job& job);
// Every dotted key of the job file, for completion and did-you-mean.
[[nodiscard]] std::vector<std::string> job_keys();

// A machine file (schema steelyard.machine/1), as `probe` will write it.
[[nodiscard]] Result<facts::Machine> machine_from(const facts::Value& value,
                                                  const std::string& name);
[[nodiscard]] facts::Value to_value(const facts::Machine& machine);

[[nodiscard]] facts::Value to_value(const facts::Plan& plan);             // schema steelyard.plan/1
[[nodiscard]] facts::Value to_value(const facts::VramWhy& why);           // schema steelyard.why/1
[[nodiscard]] facts::Value to_value(const facts::MachinesCompared& all);  // steelyard.comparison/1
[[nodiscard]] facts::Value to_value(const facts::SearchResult& result);   // steelyard.search/1
[[nodiscard]] facts::Value to_value(const facts::Limits& limits);         // steelyard.limits/1
[[nodiscard]] facts::Value to_value(const facts::PaceWhy& why);  // schema steelyard.why-pace/1
// Schema steelyard.model-table/1.
[[nodiscard]] facts::Value to_value(const facts::ModelTable& table);
[[nodiscard]] Result<facts::CaseFile> read_cases(const std::filesystem::path& file);
// What is known about predictions that are far off.
[[nodiscard]] Result<std::vector<facts::CaseNote>> read_case_notes(
    const std::filesystem::path& file);
[[nodiscard]] facts::Value to_value(const facts::Validation& validation);

// JSON Schemas (draft 2020-12 vocabulary, valid for draft 7 validators too).
enum class SchemaOf {
  job,
  plan,
  machine,
  cases,
  why,
  why_pace,
  model,
  comparison,
  limits,
  search,
  rehearsal
};
[[nodiscard]] facts::Value schema(SchemaOf what);

}  // namespace steelyard::codec
