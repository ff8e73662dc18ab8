// The layouts that a search looks at: every combination of the free keys' values that can be legal
// on so many GPUs. What the planner refuses is left to the planner.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "facts/job.h"
#include "facts/plan.h"
#include "facts/what_if.h"

namespace steelyard::search {

struct Choice {
  std::string value;  // as for --set
  std::function<void(facts::Job&)> apply;
};

struct Dimension {
  std::string key;
  std::vector<Choice> choices;  // at least one
};

// What a framework's launcher offers, as its profile says it: "none, zero1". Words that are no
// sharding are left out; none at all: no sharding.
[[nodiscard]] std::vector<facts::Sharding> shardings_of(std::string_view words);

struct Freedom {
  std::vector<std::string> keys{};  // that are free although the job gives them, or usually fixed
  std::vector<facts::Sharding> shardings = {facts::Sharding::none};
  bool experts = false;  // the model has some
};

class Space {
 public:
  // `batch`: samples per step, kept.
  Space(const facts::Job& job, std::int64_t gpus, std::int64_t per_node, std::int64_t batch,
        const Freedom& freedom);

  [[nodiscard]] std::int64_t size() const { return size_; }
  // The first so many layouts differ on the GPUs; each further such part of all differs from the
  // first in a key of the host alone.
  [[nodiscard]] std::int64_t on_gpus() const { return on_gpus_; }
  // The layout of that number (below size()), and what it sets; nothing where it cannot be legal
  // or is another one written otherwise.
  [[nodiscard]] bool layout(std::int64_t number, facts::Job& job, facts::KeySettings& set) const;
  // The same, written over another layout of this space.
  [[nodiscard]] bool apply(std::int64_t number, facts::Job& job) const;
  // Of it what the host alone has: over a layout that is the same on the GPUs.
  void apply_on_the_host(std::int64_t number, facts::Job& job) const;
  [[nodiscard]] const facts::Job& job() const { return job_; }
  [[nodiscard]] facts::KeySettings settings(std::int64_t number) const;
  [[nodiscard]] std::vector<std::string> keys() const;

 private:
  void add(const std::string& key, std::vector<Choice> choices, const Freedom& freedom,
           bool usually = true);
  void count();
  void add_ranks(const Freedom& freedom);
  void add_virtual_stages(const Freedom& freedom);
  void add_training(const Freedom& freedom);
  [[nodiscard]] bool has(const std::string& key) const;
  [[nodiscard]] bool can_be_legal(const facts::Job& job) const;
  void mark_as_own(facts::Job& job) const;

  facts::Job job_;
  std::int64_t gpus_, per_node_, batch_;
  std::int64_t size_ = 1, on_gpus_ = 1;
  bool chooses_sharding_ = false;
  std::vector<Dimension> dimensions_;  // a key of the host alone comes last
};

}  // namespace steelyard::search
