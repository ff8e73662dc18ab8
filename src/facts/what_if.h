// What a job would be elsewhere or otherwise: one job on several machines, and how far each of its
// sizes can go.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "facts/plan.h"

namespace steelyard::facts {

// One line of `steelyard compare`.
struct ComparedMachine {
  std::string machine;  // as it was named
  std::string refused;  // why the job cannot be planned there; then there is no plan
  std::optional<Plan> plan;
};

struct MachinesCompared {
  std::string job;
  std::int64_t gpus = 0;  // of the job, the same number on every machine
  std::vector<ComparedMachine> machines;
};

enum class LimitSense { largest, least };
STEELYARD_ENUM_NAMES(LimitSense, "largest", "least")

// How far one key can go while everything else stays: one line of `steelyard limits`.
struct Limit {
  std::string key;   // "train.micro_batch"
  std::string what;  // "samples per GPU and pass"
  LimitSense sense = LimitSense::largest;
  std::int64_t now = 0;
  std::int64_t step = 1;              // values between its multiples were not tried
  std::optional<std::int64_t> limit;  // none: nothing that was tried fits
  bool beyond = false;                // `limit` is where the search ended, not where it breaks
  std::string breaks;                 // what happens one step further
};

struct Limits {
  std::string job;
  bool fits = false;  // as it is
  std::vector<Limit> limits;
};

}  // namespace steelyard::facts
