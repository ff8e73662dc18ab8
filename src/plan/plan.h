// The first header of the room, the only place that joins the predicting rooms: one Plan, its
// balance and its advice.
#pragma once

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/model_source.h"
#include "facts/plan.h"

namespace steelyard::plan {

struct Request {
  facts::Job job;            // as read; resolved here
  facts::ModelSource model;  // the job's model, overrides applied
  facts::Machine machine;    // the job's machine, overrides applied
  facts::Constants constants;
  bool timeline = false;
  bool advice = true;  // false: only the figures (validation, search)
};

[[nodiscard]] Result<facts::Plan> plan(const Request& request);

}  // namespace steelyard::plan
