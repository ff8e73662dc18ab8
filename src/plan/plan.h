// The first header of the room, the only place that joins the predicting rooms: one Plan, its
// balance and its advice.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/evidence.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/model_source.h"
#include "facts/model_table.h"
#include "facts/pace_why.h"
#include "facts/plan.h"
#include "pace/pace.h"
#include "step/program.h"

namespace steelyard::step {
class Workshop;
}

namespace steelyard::plan {

struct Request {
  facts::Job job;                                   // as read; resolved here
  facts::ModelSource model;                         // the job's model, overrides applied
  std::vector<facts::ModelSource> companions = {};  // those of the job, in its order
  std::vector<facts::ModelSource> roles = {};       // the models beside the policy, in its order
  facts::Machine machine;                           // the job's machine, overrides applied
  facts::Constants constants;
  // What the job could run on instead, asked for only when advice needs it; empty: nothing.
  std::function<std::vector<facts::Machine>()> alternatives = {};
  // Errors on measured cases; null: how far to trust the figures stays unsaid.
  std::shared_ptr<const std::vector<facts::Evidence>> evidence = {};
  // What its plan has in common with others; null: nothing. Shared by plans side by side.
  std::shared_ptr<step::Workshop> workshop = {};
  bool timeline = false;
  bool advice = true;  // false: only the figures (validation, search)
  bool vram = true;    // false: the GPUs' memory stays unknown (validation of the pace alone)
};

[[nodiscard]] Result<facts::Plan> plan(const Request& request);

// By what a planned job is compared with measured ones.
[[nodiscard]] facts::Likeness likeness_of(const facts::Plan& plan);

// All that the pace of a job needs, for who times the same step with several constants.
struct PaceQuestion {
  facts::Job job;  // resolved
  facts::Machine machine;
  step::Program program;  // of the busiest rank
  pace::Request wanted;   // but for these three and the constants

  // Valid as long as this object and the constants are.
  [[nodiscard]] pace::Request ask(const facts::EfficiencyConstants& efficiency) const;
};
[[nodiscard]] Result<PaceQuestion> pace_question(const Request& request);

// What fills one kind of rank at its peak; none given: the fullest, as in the plan.
// Errors: those of `plan`; a kind that the job does not have.
[[nodiscard]] Result<facts::VramWhy> vram_why(const Request& request,
                                              const std::optional<std::string>& kind = {});

// What a step of the busiest rank is made of. Errors: those of `plan`.
[[nodiscard]] Result<facts::PaceWhy> pace_why(const Request& request);

// The model of the job, operator by operator. Errors: those of `plan`.
[[nodiscard]] Result<facts::ModelTable> model_table(const Request& request);

}  // namespace steelyard::plan
