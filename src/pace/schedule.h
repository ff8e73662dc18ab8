// A pipeline played pass by pass: when the last stage is done. Stages may differ, and backward may
// be split so that gradients of weights wait (zero-bubble). docs/model/communication.md.
#pragma once

#include <cstdint>
#include <vector>

#include "base/quantity.h"
#include "facts/enums.h"

namespace steelyard::step {
class Workshop;
}

namespace steelyard::pace {

// Of one micro-batch in one chunk of a stage.
struct StageTimes {
  Seconds forward;
  Seconds backward;  // all of it
  Seconds weights;   // the part of backward that nobody else waits for: gradients of weights
};

struct Pipeline {
  facts::Schedule schedule = facts::Schedule::one_f_one_b;
  std::vector<StageTimes> stages;
  std::int64_t chunks = 1, micro_batches = 1;
  std::int64_t group = 0;  // of interleaved chunks (step/pipeline.h)
};

// From the first forward pass to the end of the last backward pass of any stage.
// `workshop`: of plans that ask for pipelines of the same shape; null: none.
[[nodiscard]] Seconds played(const Pipeline& pipeline, step::Workshop* workshop = nullptr);

}  // namespace steelyard::pace
