// Errors of predictions on measured cases, with what makes one job like another: what the
// confidence of a plan is read from. catalog/confidence/measured.tsv
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/cases.h"

namespace steelyard::facts {

// What a job is compared with others by. Written as names, so that the file outlives the enums.
struct Likeness {
  std::string family;        // the model's: "llama"
  std::string architecture;  // the GPU's: "hopper"
  std::string framework, method, precision, sharding, recompute;
  std::int64_t tensor = 1, pipeline = 1, context = 1, expert = 1;
  std::int64_t gpus = 1;  // of the whole job
  double parameters = 0.0;
};

struct Evidence {
  std::string id;  // of the case
  QuantityGroup group = QuantityGroup::vram;
  Likeness of;
  Ratio error;  // predicted / measured - 1
};

}  // namespace steelyard::facts
