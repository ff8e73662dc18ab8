#include "step/ddp_buckets.h"

#include <algorithm>
#include <ranges>

#include "step/weight_storage.h"

namespace steelyard::step {

namespace {

constexpr Bytes kFirstCap = Bytes(1024 * 1024);

class Filling {
 public:
  explicit Filling(Bytes cap) : cap_(cap) {}
  void take(Bytes gradient) {
    held_ += gradient;
    if (held_ < (full_.empty() ? std::min(kFirstCap, cap_) : cap_)) return;
    full_.push_back(held_);
    held_ = Bytes();
  }
  [[nodiscard]] std::vector<Bytes> end() && {
    if (held_ > Bytes()) full_.push_back(held_);
    return std::move(full_);
  }

 private:
  Bytes cap_;
  Bytes held_{};
  std::vector<Bytes> full_;
};

}  // namespace

std::vector<Bytes> ddp_buckets(const model::Graph& graph, facts::DType gradient, Bytes cap) {
  Filling filling(cap);
  for (const model::Segment& segment : graph.segments | std::views::reverse) {
    for (std::int64_t layer = 0; layer < segment.repeat; ++layer) {
      for (const model::Block& block : segment.blocks | std::views::reverse) {
        for (const model::Weight& weight : block.weights | std::views::reverse) {
          if (!is_reduced(weight)) continue;
          filling.take(bytes_of(model::elements(weight.shape), gradient));
        }
      }
    }
  }
  return std::move(filling).end();
}

}  // namespace steelyard::step
