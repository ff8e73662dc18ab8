// The repository's own catalogue and the real planner.
#pragma once

#include "plan/planning.h"
#include "search/search.h"

namespace steelyard::search {

inline const Planner& own_planner() {
  static const Planner with_catalog = [](const facts::Job& job,
                                         Depth depth) -> Result<facts::Plan> {
    plan::Request request;
    request.job = job;
    STEELYARD_TRY(model, plan::own_catalog().model_of(job, {}));
    STEELYARD_TRY(machine, plan::own_catalog().machine_of(job, {}));
    STEELYARD_TRY(constants, plan::own_catalog().constants(job.framework));
    request.model = std::move(model);
    request.machine = std::move(machine);
    request.constants = std::move(constants);
    request.advice = false;
    request.vram = depth != Depth::without_vram;
    return plan::plan(request);
  };
  return with_catalog;
}

}  // namespace steelyard::search
