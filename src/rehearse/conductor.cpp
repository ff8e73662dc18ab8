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
  Result<void> copy();
  void give_back();
  void begin_step(const Agreed& all);

  [[nodiscard]] bool ready() const { return batches_.size() == context_.accelerators.size(); }

  const Conducted& context_;
  Nanoseconds end_;  // of the step under way, else of the last one
  std::vector<Batches::Full> batches_;
  Turn turn_;
};

void Conductor::give_back() {
  for (const Batches::Full& full : batches_) {
    context_.batches.give_back(full.batch);
    context_.took();
  }
}

Result<void> Conductor::copy() {
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    STEELYARD_CHECK(context_.devices->begin_copy(i, context_.batches.memory(batches_[i].batch),
                                                 context_.batches.batch_bytes()));
  }
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    STEELYARD_CHECK(context_.devices->end_copy(i));
    batches_[i].since = now();  // there since then
  }
  give_back();
  return {};
}

// Real accelerators get the next batches while a step is under way, paced ones after its end.
void Conductor::collect() {
  if (turn_.ready) return;
  if (context_.devices == nullptr) sleep_until(end_, context_.stop);
  while (!ready()) {
    const Nanoseconds most = std::max(kSign, end_ - now());
    const auto full = context_.batches.take_within(most, batches_.size());
    if (!full) break;
    batches_.push_back(*full);
  }
  if (ready() && context_.devices != nullptr) {
    if (auto copied = copy(); !copied) context_.broken(std::move(copied).error());
  }
  sleep_until(end_, context_.stop);
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
  if (context_.devices == nullptr) give_back();
  batches_.clear();
  end_ += all.wait + context_.step;
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
