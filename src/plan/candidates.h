// The changes a practitioner would try, each with the keys it sets.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "facts/job.h"
#include "facts/plan.h"

namespace steelyard::plan {

struct Candidate {
  std::string what;  // "recompute activations in the backward pass"
  std::vector<std::pair<std::string, std::string>> set;  // key, value as for --set
  std::function<void(facts::Job&)> apply;                // on the job as read (unresolved)
};

// Candidates that this resolved job does not have yet: less GPU memory, in the order of their
// price.
[[nodiscard]] std::vector<Candidate> that_save_vram(const facts::Job& resolved);
// Less host memory.
[[nodiscard]] std::vector<Candidate> that_save_ram(const facts::Job& resolved);
// More speed from memory that is idle, or a faster data path.
[[nodiscard]] std::vector<Candidate> that_gain_speed(const facts::Plan& planned);

}  // namespace steelyard::plan
