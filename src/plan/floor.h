// What no plan of a layout can go below, in a small part of a plan's time: for who plans many
// layouts of one job and wants to leave out those that cannot win.
#pragma once

#include <memory>
#include <optional>

#include "base/error.h"
#include "base/quantity.h"
#include "facts/job.h"
#include "plan/plan.h"

namespace steelyard::plan {

struct Floor {
  Seconds step;          // of pace.step
  Bytes ram;             // of ram.peak, which it is where no activations go to the host
  Bytes vram;            // of vram.fullest.peak_device_used
  bool any = false;      // false: nothing is known, all are 0
  bool refused = false;  // no plan is made of such a layout
};

// Floors of layouts of one job on one kind of node. They come from the same programs and prices as
// plans: a program of all layers on one rank is made once for all layouts that split layers,
// samples and tokens alike, however deep the pipeline and however many replicas. Of that program
// the layers alone are counted; docs/model/search.md derives it. Asked side by side.
class Floors {
 public:
  // The job of `request` gives all that layouts do not; its nodes may be others.
  explicit Floors(Request request);
  Floors(const Floors&) = delete;
  Floors& operator=(const Floors&) = delete;
  ~Floors();

  // `alike`: the floor of a layout that differs in keys of the host alone; null: none is at hand.
  // Errors: what host memory is refused for; other refusals that are not certain: nothing is known.
  [[nodiscard]] Result<Floor> of(const facts::Job& layout, const Floor* alike = nullptr);

 private:
  class Memory;
  std::unique_ptr<Memory> memory_;
};

}  // namespace steelyard::plan
