// A job's plan and its rehearsal: what to run, and the prediction beside each figure.
#pragma once

#include "facts/constants.h"
#include "facts/plan.h"
#include "facts/rehearsal.h"
#include "ram/loader_alone.h"
#include "rehearse/rehearse.h"

namespace steelyard::cli {

// One node of the job: its GPUs, samples per GPU and step, step time without waiting for data, its
// loaders as threads. Errors: missing_value when the plan has no step time but it is needed.
[[nodiscard]] Result<rehearse::Settings> settings_of(const facts::Plan& plan, bool step_needed);

// What the plan says of the same data path run by `steelyard rehearse` itself: the job's machine
// and accelerators, the data that were opened, the settings as they are.
struct EnginePlan {
  facts::FeedPlan feed;
  ram::LoaderMemory memory;
};
[[nodiscard]] Result<EnginePlan> engine_plan(const facts::Plan& plan,
                                             const facts::HostConstants& constants,
                                             const rehearse::Dataset& dataset,
                                             const rehearse::Settings& settings);

// `engine` beside each figure; what the plan says of the job's own loader in a note.
void put_beside(const facts::Plan& plan, const EnginePlan& engine, facts::Rehearsal& rehearsal);

}  // namespace steelyard::cli
