// The layouts that a search looks at: every combination of the free keys' values that can be legal
// on so many GPUs. What the planner refuses is left to the planner.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
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

class Space {
 public:
  // `free`: keys that are free although the job gives them. `batch`: samples per step, kept.
  Space(const facts::Job& job, std::int64_t gpus, std::int64_t per_node, std::int64_t batch,
        const std::vector<std::string>& free);

  [[nodiscard]] std::int64_t size() const;
  // The layout of that number (below size()), and what it sets; nothing where it cannot be legal
  // or is another one written otherwise.
  [[nodiscard]] bool layout(std::int64_t number, facts::Job& job, facts::KeySettings& set) const;
  [[nodiscard]] std::vector<std::string> keys() const;

 private:
  void add(const std::string& key, std::vector<Choice> choices,
           const std::vector<std::string>& free);
  [[nodiscard]] bool can_be_legal(const facts::Job& job) const;

  facts::Job job_;
  std::int64_t gpus_, per_node_, batch_;
  std::vector<Dimension> dimensions_;
};

}  // namespace steelyard::search
