// What every piece of work and every collective of a step takes, with the constants of the GPU's
// generation: what pace.h adds up and why.h tells one by one.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "pace/figures.h"
#include "pace/pace.h"
#include "pace/walk.h"
#include "step/program.h"

namespace steelyard::pace {

struct Used {  // by index: whether the step (not the set-up) has such an event
  std::vector<bool> work, communication;
};
[[nodiscard]] Result<Used> used_by_step(const step::Program& program);

// All that the job uses.
[[nodiscard]] std::int64_t gpus_of(const Request& request);

// Of the GPU's architecture, with the attention kernel that the job asks for.
[[nodiscard]] facts::EfficiencyConstants constants_for(const Request& request);

// Zero where the machine lacks a figure; `missing` then names it.
[[nodiscard]] Prices price(const step::Program& program, const Used& used, const Request& request,
                           const facts::EfficiencyConstants& constants, Missing& missing);

// An error in the program or the constants, never in what a user wrote.
[[nodiscard]] Error our_bug(std::string subject, std::string found, std::string accepted);

}  // namespace steelyard::pace
