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

namespace steelyard::search {

// A plan without advice. `only_if_fits`: where the GPUs' memory does not suffice, how much it lacks
// is not wanted. Called side by side: it may share nothing that it writes.
using Planner = std::function<Result<facts::Plan>(const facts::Job& job, bool only_if_fits)>;

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

// The configuration's key for its number of layers ("num_hidden_layers", "n_layer", ...) and the
// number; none where it has none.
[[nodiscard]] std::optional<std::pair<std::string, std::int64_t>> layers_of(
    const facts::Value& config);

}  // namespace steelyard::search
