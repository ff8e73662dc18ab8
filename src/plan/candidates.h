// The changes a practitioner would try, each with the keys it sets.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "facts/job.h"
#include "facts/plan.h"
#include "plan/plan.h"

namespace steelyard::plan {

// What a change leaves at the very least of what is held at the fullest moment, category by
// category: that moment exists after the change too, so its rest is a bound that no plan beats.
struct Remains {
  Ratio parameters{1.0}, gradients{1.0}, optimizer{1.0}, activations{1.0}, temporaries{1.0};
  Ratio batch{1.0};

  [[nodiscard]] Remains with(const Remains& more) const;
  [[nodiscard]] Bytes of(const facts::VramBytes& held) const;
};

struct Candidate {
  std::string what;  // "recompute activations in the backward pass"
  std::vector<std::pair<std::string, std::string>> set;  // key, value as for --set
  std::function<void(facts::Job&)> apply;                // on the job as read (unresolved)
  facts::AdviceEffort effort = facts::AdviceEffort::setting;
  Remains remains{};                        // of a GPU's memory
  std::optional<facts::Machine> machine{};  // instead of the request's
};

// Candidates that this plan does not have yet: less GPU memory, in the order of their price.
[[nodiscard]] std::vector<Candidate> that_save_vram(const facts::Plan& planned);
// Less host memory in the phases that exceed it.
[[nodiscard]] std::vector<Candidate> that_save_ram(const facts::Plan& planned);
// Shorter steps from memory or transfers that the plan can do without.
[[nodiscard]] std::vector<Candidate> that_gain_speed(const facts::Plan& planned);
// A way of saving that the step waits less for, where it does.
[[nodiscard]] std::vector<Candidate> that_save_faster(const facts::Plan& planned);
// A faster data path, where the GPUs wait for it.
[[nodiscard]] std::vector<Candidate> that_feed_faster(const facts::Plan& planned);
// Another machine: one that holds what this one does not, or one that costs less.
[[nodiscard]] std::vector<Candidate> other_machines(const Request& request,
                                                    const facts::Plan& planned);

}  // namespace steelyard::plan
