// What a job would be elsewhere or otherwise: one job on several machines, and how far each of its
// sizes can go.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
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

enum class SearchGoal { step, cost, gpus, energy };
STEELYARD_ENUM_NAMES(SearchGoal, "step", "cost", "gpus", "energy")

using KeySettings = std::vector<std::pair<std::string, std::string>>;  // key, value as for --set

// A layout that fits, planned in full.
struct FoundLayout {
  KeySettings set;
  Plan plan;
  std::optional<double> cost_per_step, joules_per_step;  // unknown without a price, without watts
  bool on_front = false;  // nothing else is better in step, cost, GPUs and RAM at once
};

// A layout that is not the best one, and why.
struct LostLayout {
  KeySettings set;
  std::optional<Seconds> step;
  std::string why;
};

// So many nodes of one machine.
struct SearchedPlace {
  std::string machine;
  std::int64_t nodes = 1, gpus = 1;  // nodes, GPUs of each
  std::string refused;               // why the job cannot go there at all
  std::int64_t layouts = 0;          // legal ones
  std::int64_t ruled_out = 0;        // of those: not planned, because a bound rules them out
  std::int64_t illegal = 0;          // that were refused
  std::vector<FoundLayout> found;    // the fastest first; then what needs less RAM
  std::vector<LostLayout> lost;      // faster ones that do not fit, then slower ones
  bool finished = true;              // false: the search was stopped before it was through here
  std::string outside;               // some layout fits, but none within what was asked for: why
  // Where nothing fits: a change of other keys that makes one layout fit, and all that it sets.
  std::string change;
  KeySettings change_set;
};

// A place that what was asked for rules out without a plan.
struct ExcludedPlace {
  std::string machine;
  std::int64_t nodes = 1, gpus = 1;  // nodes, GPUs of each
  std::string why;
};

struct SearchResult {
  std::string job;
  SearchGoal goal = SearchGoal::step;
  std::int64_t global_batch = 1;  // kept everywhere
  std::vector<std::string> free;  // the keys that were free
  std::vector<SearchedPlace> places;
  std::vector<ExcludedPlace> excluded;
  std::vector<std::string> currencies;  // of the places' prices: none is converted into another
  bool interrupted = false;
};

}  // namespace steelyard::facts
