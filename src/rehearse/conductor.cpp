#include "rehearse/conductor.h"

#include <algorithm>
#include <vector>

namespace steelyard::rehearse {
namespace {

constexpr Nanoseconds kSign = 100'000'000;  // who waits for its batches says so that often

class Conductor {
 public:
  explicit Conductor(const Conducted& context) : context_(context), end_(now()) {}

  Result<void> run();

 private:
  // Takes what is missing of the next step's batches, for a while.
  void collect();
  void begin_step(const Agreed& all);

  [[nodiscard]] bool ready() const { return batches_.size() == context_.accelerators.size(); }

  const Conducted& context_;
  Nanoseconds end_;  // of the last step
  std::vector<Batches::Full> batches_;
  Turn turn_;
};

void Conductor::collect() {
  while (!ready()) {
    const auto full = context_.batches.take_within(kSign);
    if (!full) break;
    batches_.push_back(*full);
  }
  if (turn_.ready) return;
  const Nanoseconds time = now();
  Nanoseconds since = time;
  if (ready()) {
    // As one accelerator's: a thread that was woken late does not show as missing data.
    since = time - std::min(context_.step, kCatchUp);
    for (const Batches::Full& full : batches_) since = std::max(since, full.since);
  }
  turn_ = {.ready = ready(), .wait = std::max<Nanoseconds>(0, since - end_)};
}

void Conductor::begin_step(const Agreed& all) {
  const bool first = context_.accelerators[0].steps() == 0;
  if (!first) {
    context_.waits.for_data += turn_.wait;
    context_.waits.for_others += all.wait - turn_.wait;
    if (all.wait > 0 && all.slowest == context_.crew.rank()) ++context_.waits.last;
  }
  for (const Batches::Full& full : batches_) {
    context_.batches.give_back(full.batch);
    context_.took();
  }
  batches_.clear();
  end_ += all.wait + context_.step;
  sleep_until(end_, context_.stop);
  for (AcceleratorTime& one : context_.accelerators) one.step(all.wait, context_.step);
  turn_ = {};
}

Result<void> Conductor::run() {
  for (;;) {
    collect();
    turn_.end = context_.end();
    STEELYARD_TRY(all, context_.crew.agree(turn_, context_.patience + seconds(context_.step)));
    if (all.end) {
      for (AcceleratorTime& one : context_.accelerators) one.waited_in_vain(all.wait);
      context_.stop_all(*all.end);
      return {};
    }
    if (all.ready) begin_step(all);
  }
}

}  // namespace

Result<void> conduct(const Conducted& context) {
  return Conductor(context).run();
}

}  // namespace steelyard::rehearse
