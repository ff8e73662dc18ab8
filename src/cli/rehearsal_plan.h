// A job's plan and its rehearsal: what to run, and the prediction beside each figure.
#pragma once

#include "facts/plan.h"
#include "facts/rehearsal.h"
#include "rehearse/rehearse.h"

namespace steelyard::cli {

// One node of the job: its GPUs, samples per GPU and step, step time without waiting for data, its
// loaders as threads. Errors: missing_value when the plan has no step time.
[[nodiscard]] Result<rehearse::Settings> settings_of(const facts::Plan& plan);

void put_beside(const facts::Plan& plan, facts::Rehearsal& rehearsal);

}  // namespace steelyard::cli
