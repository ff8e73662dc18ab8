// Gradients of a scaled loss, between backward and clipping: divided by the scale and looked
// through for what overflowed, which the host reads before it launches the optimizer.
#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

namespace {

// Of an element in 16 bits, what DeepSpeed's _has_inf_or_nan reads and writes (stage_1_and_2.py):
// widened 2 + 4, isnan 4 + 1, isinf 4 + 4 and 4 + 1, logical_or 1 + 1 + 1, float 1 + 4, max 4.
constexpr double kBytesChecked = 36.0;
constexpr double kInPlace = 2.0;  // read and written

bool scales_loss(const facts::Job& job, const Layout& layout) {
  const facts::Precision precision = job.train.precision;
  return precision == facts::Precision::fp16_mixed ||
         (precision == facts::Precision::fp16 && layout.master);
}

}  // namespace

// In place (torch's GradScaler: _amp_foreach_non_finite_check_and_unscale_), or from the short
// gradients to those that are stepped (apex's multi_tensor_scale); Megatron-LM widens its buffer's,
// then does so in place. DeepSpeed checks operation by operation, then multiplies what it steps,
// whatever its type (unscale_and_clip_grads); clipping is that same product.
void Assembler::add_unscaling() {
  const auto word = profile_.operators.find("unscaling");
  if (word == profile_.operators.end() || word->second == "none") return;
  if (job_.train.optimizer.in_backward || layout_.on_host.gradients) return;  // host_passes
  const bool apart = word->second == "checked_apart";
  const bool scaled = scales_loss(job_, layout_);
  if (!scaled && !apart) return;
  Phase phase{PhaseKind::clip, {}};
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    body.layer = segment.blocks.front().name;
    body.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (steps(weight)) unscale(body.events, weight, scaled, apart);
      }
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
  if (!phase.bodies.empty()) program_.step.push_back({1, {std::move(phase)}});
}

void Assembler::unscale(std::vector<Event>& events, const model::Weight& weight, bool scaled,
                        bool apart) {
  const std::int64_t shard = ceil_divide(model::elements(weight.shape),
                                         shards_of(layout_, weight, layout_.optimizer_shards));
  const std::int64_t graded = weight.touched > 0 ? weight.touched : shard;
  const DType type = gradient_type(layout_, weight);
  const Bytes held = bytes_of(graded, type);
  const Bytes stepped = bytes_of(graded, stepped_type(layout_, weight));
  if (apart) {
    const bool narrow = scaled && facts::bytes_of(type) < facts::bytes_of(DType::fp32);
    if (narrow)
      work(events, WorkKind::optimizer, bytes_of(graded, DType::fp32) * Ratio(kBytesChecked / 4.0),
           "check_overflow");
    if (!job_.train.gradient_clipping) {
      work(events, WorkKind::optimizer, stepped * Ratio(kInPlace), "unscale");
    }
    return;
  }
  if (layout_.gradient_buffer) {
    const bool widens = main_gradient(weight) > Bytes();
    work(events, WorkKind::optimizer,
         stepped * Ratio(kInPlace) + (widens ? held + stepped : Bytes()), "unscale");
    return;
  }
  work(events, WorkKind::optimizer, held + stepped, "unscale");
}

// What the host passes over in its step beside the optimizer's own: clipping reads the gradients
// for their norm, then reads and writes them. DeepSpeed sums squares on the GPU as gradients leave
// it, and multiplies them on the host whether it clips or not.
double Assembler::host_passes() const {
  constexpr double kClipPasses = 3.0;
  const auto word = profile_.operators.find("unscaling");
  const std::string_view how = word == profile_.operators.end() ? "none" : word->second;
  const double own = layout_.optimizer.passes;
  if (how == "checked_apart") return own + kInPlace;
  const bool clips = job_.train.gradient_clipping && layout_.on_host.gradients;
  const bool unscales = how != "none" && layout_.on_host.gradients && scales_loss(job_, layout_);
  return own + (clips ? kClipPasses : 0.0) + (unscales ? kInPlace : 0.0);
}

}  // namespace steelyard::step
