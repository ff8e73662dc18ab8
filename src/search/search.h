// The first header of the room: many plans of changed jobs instead of one. How a job is planned is
// the caller's, who knows catalogues and files; what comes out does not depend on the number of
// threads.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "facts/job.h"
#include "facts/what_if.h"
#include "search/crew.h"

namespace steelyard::search {

// How much of a plan is wanted: everything and what to change on the same machine; everything; of
// the GPUs' memory up to the first kind of rank that has too little; only whether it suffices; the
// step and the host's memory alone: the GPUs' takes by far the longest.
enum class Depth { advised, full, until_short, only_if_fits, without_vram };

// Plans without advice, unless it is asked for. Called side by side: it may share nothing that it
// writes.
using Planner = std::function<Result<facts::Plan>(const facts::Job& job, Depth depth)>;

// The job on each machine (names and their keys), on as many GPUs as `planned` has: on the fewest
// nodes that hold them. A machine whose nodes they do not fill evenly refuses.
[[nodiscard]] facts::MachinesCompared compare(
    const facts::Job& job, const facts::Plan& planned,
    const std::vector<std::pair<std::string, facts::Machine>>& machines, const Planner& planner);

struct LimitsQuestion {
  const facts::Job* job = nullptr;       // as read
  const facts::Plan* planned = nullptr;  // of it
  // The configuration's own key for its number of layers and the number; none: not searched.
  std::optional<std::pair<std::string, std::int64_t>> layers;
};

// How far each size of the job can go before it stops to fit, each by bisection with the planner:
// micro-batch, sequence length, image size, rank of the adapters, layers; and the fewest GPUs and
// the least host memory. Bisection takes for granted that more never needs less.
[[nodiscard]] facts::Limits limits(const LimitsQuestion& question, const Planner& planner);

struct Place {
  std::string name;        // of the machine, as the job names it
  facts::Machine machine;  // what it is
  std::int64_t nodes = 1;
};

// Plans, at Depth::without_vram, of jobs that differ in keys of the host alone (data.workers): what
// GPUs do is asked for once. In their order; each step and host memory as the planner's. Called
// side by side.
using Siblings =
    std::function<std::vector<Result<facts::Plan>>(const std::vector<facts::Job>& jobs)>;

// What no plan of a layout goes below; of whole nodes' memory, of one GPU's.
struct Bound {
  Seconds step;
  Bytes ram, vram;
  bool refused = false;  // the planner refuses such layouts
};
// Nothing: nothing is known of that layout. `alike`: the bound of one that differs in keys of the
// host alone; null: none is at hand. Called side by side.
using Bounds = std::function<std::optional<Bound>(const facts::Job& layout, const Bound* alike)>;

// What the answer must keep to; no value: anything.
struct Within {
  std::optional<double> step;      // seconds
  std::optional<double> price;     // per hour, of all nodes; a machine without a price does not
  std::optional<double> ram_gib;   // of a node
  std::optional<double> vram_gib;  // of a GPU
  std::optional<std::int64_t> gpus;
};

// Of all places.
struct Counts {
  std::int64_t planned = 0, ruled_out = 0, refused = 0;
};

struct SearchQuestion {
  const facts::Job* job = nullptr;       // as read: keys that it gives are fixed
  const facts::Plan* planned = nullptr;  // of it; its batch of a step is kept everywhere
  std::vector<Place> places;
  // Keys that are free although the job gives them, or although they usually are not (precision).
  std::vector<std::string> free{};
  std::vector<facts::Sharding> shardings = {facts::Sharding::none};  // that the launcher offers
  Within within{};
  facts::SearchGoal goal = facts::SearchGoal::step;
  // Bounds for the layouts of a place, of which it gets one; none: every layout is planned.
  std::function<Bounds(const facts::Job& place)> bounds = {};
  Siblings siblings = {};    // none: the planner is asked for each
  Counts* counts = nullptr;  // what has become of the layouts; null: nobody asks
  Crew* crew = nullptr;      // processes that search together; all of them ask the same
  // Called now and then from one thread at a time: planned or ruled out, of how many. False: stop,
  // and answer with what was found.
  std::function<bool(std::int64_t done, std::int64_t all)> progress = {};
};

// The keys that a search can set free.
[[nodiscard]] const std::vector<std::string>& searchable_keys();
// Those of them that a word names: a key, its table ("offload") or its last part ("expert").
[[nodiscard]] std::vector<std::string> keys_named(const std::string& word);

// The best of all legal layouts of the free keys on every place, in the order of their step: the
// fastest that fits, then what needs less RAM (in whole GiB). Nothing is left out by a rule of
// thumb: a layout that is not planned has a bound that a planned one beats, or that its GPU or node
// cannot hold; one whose GPU memory is not looked at is slower than one that fits and needs no less
// RAM.
[[nodiscard]] facts::SearchResult search(const SearchQuestion& question, const Planner& planner);

// The configuration's key for its number of layers ("num_hidden_layers", "n_layer", ...) and the
// number; none where it has none.
[[nodiscard]] std::optional<std::pair<std::string, std::int64_t>> layers_of(
    const facts::Value& config);

}  // namespace steelyard::search
