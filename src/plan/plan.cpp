#include "plan/plan.h"

#include <utility>

#include "plan/advice.h"
#include "plan/figures.h"
#include "step/workshop.h"

namespace steelyard::plan {

Result<facts::Plan> plan(const Request& given) {
  try {
    // What is tried for advice has most of its layers in common with the plan.
    std::optional<Request> sharing;
    if (given.advice && !given.workshop) {
      sharing = given;
      sharing->workshop = std::make_shared<step::Workshop>();
    }
    const Request& request = sharing ? *sharing : given;
    STEELYARD_TRY(prepared, prepare(request));
    Result<facts::Plan> planned = figures(request, {.prepared = prepared});
    if (planned && request.advice) {
      planned->balance.advice = advice_for(request, *planned, prepared);
    }
    return planned;
  } catch (const QuantityOverflow&) {
    Error error;
    error.code = ErrorCode::too_large;
    error.subject = "the job";
    error.found = "an amount beyond 2^63 bytes or elements";
    error.accepted = "sizes whose product a computer could hold";
    error.hint = "look at train.micro_batch, train.sequence_length and the model's widths";
    return fail(std::move(error));
  }
}

}  // namespace steelyard::plan
