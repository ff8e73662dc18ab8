// The step of the plan piece by piece: what the pace room tells of it, and what the plan adds.
#include <algorithm>

#include "pace/why.h"
#include "plan/plan.h"

namespace steelyard::plan {
namespace {

// A wait that the plan found is a row, a span at the begin of the step and something to help.
void add_wait(facts::PaceWhy& why, const char* name, facts::PaceBound bound, Seconds seconds,
              const char* help) {
  if (!(seconds > Seconds())) return;
  facts::PaceRow row;
  row.operation = name;
  row.bound = bound;
  row.busy = row.step = seconds;
  why.rows.push_back(std::move(row));
  for (facts::PaceSpan& span : why.spans) span.start += seconds;
  facts::PaceSpan wait;
  wait.track = "GPU";
  wait.name = name;
  wait.length = seconds;
  wait.counted = true;
  why.spans.insert(why.spans.begin(), std::move(wait));
  why.helps.push_back({help, seconds});
}

}  // namespace

Result<facts::PaceWhy> pace_why(const Request& request) {
  Request plain = request;
  plain.advice = plain.vram = plain.timeline = false;
  STEELYARD_TRY(planned, plan(plain));
  STEELYARD_TRY(question, pace_question(plain));
  STEELYARD_TRY(why, pace::explain(question.ask(request.constants.efficiency)));
  why.job = planned.job.name;
  why.pace = planned.pace;
  const facts::PaceBreakdown& parts = planned.pace.breakdown;
  add_wait(why, "waiting for data", facts::PaceBound::data, parts.data_stall,
           "a faster data path: steelyard why JOB feed");
  add_wait(why, "writing checkpoints", facts::PaceBound::storage, parts.checkpoint,
           "fewer or asynchronous checkpoints");
  std::stable_sort(why.rows.begin(), why.rows.end(),
                   [](const auto& a, const auto& b) { return a.step > b.step; });
  std::stable_sort(why.helps.begin(), why.helps.end(),
                   [](const auto& a, const auto& b) { return a.at_most > b.at_most; });
  return why;
}

}  // namespace steelyard::plan
