// The repository's own catalogue and the real planner.
#pragma once

#include <memory>

#include "plan/figures.h"
#include "plan/floor.h"
#include "plan/planning.h"
#include "search/search.h"
#include "search/space.h"
#include "step/workshop.h"

namespace steelyard::search {

inline Result<plan::Request> own_request(const facts::Job& job) {
  plan::Request request;
  request.job = job;
  STEELYARD_TRY(model, plan::own_catalog().model_of(job, {}));
  STEELYARD_TRY(machine, plan::own_catalog().machine_of(job, {}));
  STEELYARD_TRY(constants, plan::own_catalog().constants(job.framework));
  request.model = std::move(model);
  request.machine = std::move(machine);
  request.constants = std::move(constants);
  request.advice = false;
  return request;
}

inline const Planner& own_planner() {
  static const Planner with_catalog = [](const facts::Job& job,
                                         Depth depth) -> Result<facts::Plan> {
    STEELYARD_TRY(request, own_request(job));
    request.vram = depth != Depth::without_vram;
    request.advice = depth == Depth::advised;
    return plan::plan(request);
  };
  return with_catalog;
}

// As the program's own search plans: layouts share what they have in common.
inline const Planner& sharing_planner() {
  static const auto workshop = std::make_shared<step::Workshop>();
  static const Planner sharing = [](const facts::Job& job, Depth depth) -> Result<facts::Plan> {
    STEELYARD_TRY(request, own_request(job));
    request.workshop = workshop;
    request.vram = depth != Depth::without_vram;
    request.advice = depth == Depth::advised;
    if (request.advice) return plan::plan(request);
    return plan::figures(request, {.only_if_fits = depth == Depth::only_if_fits,
                                   .until_short = depth == Depth::until_short,
                                   .comparable_only = depth == Depth::without_vram});
  };
  return sharing;
}

// Of the real floors.
inline Bounds own_bounds(const facts::Job& place) {
  const auto floors = std::make_shared<plan::Floors>(plan::value_of(own_request(place)));
  return [floors](const facts::Job& layout, const Bound* alike) -> std::optional<Bound> {
    plan::Floor same;
    if (alike != nullptr) same = {alike->step, alike->ram, alike->vram, true, false};
    const Result<plan::Floor> floor = floors->of(layout, alike != nullptr ? &same : nullptr);
    if (!floor || !(floor->any || floor->refused)) return std::nullopt;
    return Bound{floor->step, floor->ram, floor->vram, floor->refused};
  };
}

inline std::vector<Result<facts::Plan>> own_siblings(const std::vector<facts::Job>& jobs) {
  plan::Request request = plan::value_of(own_request(jobs.front()));
  return plan::compared(request, jobs);
}

inline std::vector<facts::Sharding> own_shardings(const facts::Job& job) {
  const auto constants = plan::value_of(plan::own_catalog().constants(job.framework));
  return shardings_of(constants.framework.operators.at("shardings"));
}

}  // namespace steelyard::search
