// The layouts of a space in the order of their step, those whose step is unknown behind all others,
// each planned only when its bound says that it may come next.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/quantity.h"
#include "search/search.h"
#include "search/space.h"

namespace steelyard::search {

// A layout whose host memory is known, and its pace where the machine's figures are.
struct Candidate {
  std::int64_t number = 0;
  std::optional<Seconds> step;
  std::int64_t ram_gib = 0;  // of a node, rounded up
};

// What a node and its GPUs have, or may use.
struct Room {
  std::optional<Bytes> ram, vram;
  std::optional<Seconds> step;
};

// A layout and how many times what there is it needs at least, by its bounds.
struct Lacking {
  std::int64_t number = 0;
  double at_least = 0.0;
};

class OrderedLayouts {
 public:
  // `tick` is called with the number of layouts that are settled; false: stop soon.
  using Tick = std::function<bool(std::int64_t more)>;

  // `siblings`: none, the planner is asked for each.
  OrderedLayouts(const Space& space, const Planner& planner, const Siblings& siblings,
                 Bounds bounds, Crew* crew, const Room& room)
      : space_(space),
        planner_(planner),
        siblings_(siblings),
        bounds_(std::move(bounds)),
        crew_(crew),
        room_(room),
        on_gpus_(std::max<std::int64_t>(1, space.on_gpus())) {}

  // Bounds of all layouts. Without this there are none.
  void bound(const Tick& tick);
  // The next by step, then by the host's memory, then by number, among those that are not ruled
  // out; after a stop of those that are planned already.
  [[nodiscard]] std::optional<Candidate> next(const Tick& tick);
  // From now on only layouts that need less of a node's memory.
  void only_below(std::int64_t ram_gib) { ram_limit_ = ram_gib; }

  [[nodiscard]] std::int64_t legal() const { return legal_; }  // planned or ruled out
  [[nodiscard]] std::int64_t ruled_out() const { return ruled_out_; }
  [[nodiscard]] std::int64_t refused() const { return refused_; }
  // Why the first of them was refused; empty: none was.
  [[nodiscard]] std::string why_refused() const;
  // A plan went below its bound, so nothing that bounds ruled out is certain.
  [[nodiscard]] bool bounds_fail() const { return bounds_fail_; }
  // Those that their bounds put nearest to what there is; without bounds at most so many, evenly.
  [[nodiscard]] std::vector<Lacking> nearest(std::size_t most) const;

 private:
  struct Bounded {
    double step = 0.0;
    std::int64_t number = 0, ram_gib = 0;
    std::int64_t vram = 0;
    bool legal = false, refused = false;
  };
  struct Planned {
    double step = 0.0;  // infinite: unknown
    std::int64_t ram_gib = 0;
    bool refused = false, counts = false;  // its node holds it
  };

  // Layouts that are one on the GPUs, planned together; places in waiting_.
  static constexpr std::size_t kMostAlike = 8;
  struct Alike {
    std::array<std::size_t, kMostAlike> places{};
    std::size_t count = 0;
  };
  using PlannedAlike = std::array<Planned, kMostAlike>;

  [[nodiscard]] bool can_win(const Bounded& layout) const;
  [[nodiscard]] std::int64_t gpus_part(std::int64_t number) const { return number % on_gpus_; }
  struct Layout {
    facts::Job job;
    bool legal = false;
    std::optional<Bound> bound;
  };
  [[nodiscard]] Bounded bounded(std::int64_t number, bool alike, Layout& layout) const;
  void settle(const Bounded& layout);
  [[nodiscard]] std::vector<Alike> next_batch(std::int64_t& settled);
  [[nodiscard]] PlannedAlike planned(const Alike& alike) const;
  [[nodiscard]] Planned read(const Result<facts::Plan>& plan) const;
  void take(std::size_t place, const Planned& planned);
  [[nodiscard]] bool plan_some(const Tick& tick);  // what the tick says
  void refuse(std::int64_t number);
  [[nodiscard]] double lacks_at_least(const Bounded& layout) const;

  const Space& space_;
  const Planner& planner_;
  const Siblings& siblings_;
  Bounds bounds_;
  Crew* crew_;
  Room room_;
  std::int64_t on_gpus_;
  std::vector<Bounded> waiting_;  // by bound, alike ones side by side; from `next_` on
  std::size_t next_ = 0, batch_ = 0;
  std::vector<Bounded> too_large_;  // for the GPU or the node, by bound
  std::set<std::tuple<double, std::int64_t, std::int64_t>> ready_;  // step, RAM, number
  std::int64_t ram_limit_ = std::numeric_limits<std::int64_t>::max();
  std::int64_t legal_ = 0, ruled_out_ = 0, refused_ = 0;
  std::int64_t first_refused_ = -1;
  bool bounds_fail_ = false, stopped_ = false;
};

[[nodiscard]] std::int64_t whole_gib(Bytes bytes);

}  // namespace steelyard::search
