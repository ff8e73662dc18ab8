#include "plan/plan.h"

#include <utility>

#include "plan/advice.h"
#include "plan/figures.h"

namespace steelyard::plan {

Result<facts::Plan> plan(const Request& request) {
  try {
    Result<facts::Plan> planned = figures(request);
    if (planned && request.advice) planned->balance.advice = advice_for(request, *planned);
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
