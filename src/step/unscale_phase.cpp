// Gradients of a scaled loss, between backward and clipping: divided by the scale and looked
// through for what overflowed, which the host reads before it launches the optimizer.
#include <algorithm>
#include <string>

#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

namespace {

constexpr double kInPlace = 2.0;  // read and written

bool scales_loss(const facts::Job& job, const Layout& layout) {
  const facts::Precision precision = job.train.precision;
  return precision == facts::Precision::fp16_mixed ||
         (precision == facts::Precision::fp16 && layout.master);
}

std::string word_of(const facts::FrameworkProfile& profile) {
  const auto word = profile.operators.find("unscaling");
  return word == profile.operators.end() ? "none" : word->second;
}

// DeepSpeed's engines: _has_inf_or_nan, then unscale_and_clip_grads.
bool is_apart(const std::string& word) {
  return word == "checked_apart" || word == "summed_apart";
}

}  // namespace

void Assembler::add_unscaling() {
  const std::string word = word_of(profile_);
  if (word == "none" || job_.train.optimizer.in_backward) return;
  if (layout_.on_host.gradients) return;  // host_passes
  Phase phase{PhaseKind::clip, {}};
  if (is_apart(word)) {
    unscale_apart(phase, word == "summed_apart");
  } else if (scales_loss(job_, layout_)) {
    unscale_in_place(phase);
  }
  if (!phase.bodies.empty()) program_.step.push_back({1, {std::move(phase)}});
}

// Torch's GradScaler reads and writes each gradient (_amp_foreach_non_finite_check_and_unscale_),
// apex's writes what is stepped (multi_tensor_scale). Megatron-LM widens what its buffer holds in
// 16 bits, then does as torch.
void Assembler::unscale_in_place(Phase& phase) {
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    body.layer = segment.blocks.front().name;
    body.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!steps(weight)) continue;
        const std::int64_t shard = ceil_divide(
            model::elements(weight.shape), shards_of(layout_, weight, layout_.optimizer_shards));
        const std::int64_t graded = weight.touched > 0 ? weight.touched : shard;
        const Bytes held = bytes_of(graded, gradient_type(layout_, weight));
        const Bytes stepped = bytes_of(graded, stepped_type(layout_, weight));
        const bool widened = main_gradient(weight) > Bytes();
        work(body.events, WorkKind::optimizer,
             held + stepped + (widened ? stepped * Ratio(kInPlace) : Bytes()), "unscale");
      }
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
}

// Tensor by tensor: those of this rank's partition, all of them where each is sharded by itself.
void Assembler::check_overflow(Phase& phase, bool summed) {
  // Of an element in 16 bits. float(x.float().sum()): widened 2 + 4, read 4. Since pull request
  // 5115: widened 2 + 4, isnan 4 + 1, isinf 4 + 4 and 4 + 1, logical_or 3, float 1 + 4, max 4.
  const double bytes = summed ? 10.0 : 36.0;
  std::int64_t tensors = 0;
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      const std::int64_t trained = std::ranges::count_if(block.weights, steps);
      tensors = checked_add(tensors, checked_multiply(segment.repeat, trained));
    }
  }
  if (!layout_.gathers) tensors = ceil_divide(tensors, layout_.optimizer_shards);
  if (tensors == 0) return;
  const double each = static_cast<double>(partition_elements()) / static_cast<double>(tensors);
  Body body;
  body.layer = "gradients";
  body.repeat = tensors;
  work(body.events, WorkKind::optimizer, Bytes(static_cast<std::int64_t>(each * bytes)),
       summed ? "sum_overflow" : "check_overflow");
  phase.bodies.push_back(std::move(body));
}

// The product with 1 / scale is made whatever the type, and is that of clipping too. Without ZeRO
// (fp16/fused_optimizer.py) gradients are widened and joined, and their norm tells of an overflow.
void Assembler::unscale_apart(Phase& phase, bool summed) {
  const bool scaled = scales_loss(job_, layout_);
  const bool partitioned = layout_.flat_buckets || layout_.gathers;
  if (!partitioned && !scaled) return;
  if (partitioned && scaled) check_overflow(phase, summed);
  const std::int64_t numel = partition_elements();
  const Bytes stepped = bytes_of(numel, layout_.stepped);
  Bytes moved;
  if (!partitioned) moved = bytes_of(numel, layout_.gradient) + stepped * Ratio(3.0);
  if (!job_.train.gradient_clipping) moved += stepped * Ratio(partitioned ? 2.0 : 3.0);
  if (moved == Bytes()) return;
  Body body;
  body.layer = "gradients";
  work(body.events, WorkKind::optimizer, moved, "unscale");
  phase.bodies.push_back(std::move(body));
}

// What the host passes over in its step. Clipping reads the gradients for their norm, then reads
// and writes them. DeepSpeed sums squares on the GPU as gradients leave it, multiplies on the
// host whether it clips or not, and narrows new parameters there (copy_ converts, then copies).
double Assembler::host_passes() const {
  constexpr double kClipPasses = 3.0;
  const std::string word = word_of(profile_);
  const double own = layout_.optimizer.passes;
  if (is_apart(word)) {
    const Bytes wide = bytes_of(1, layout_.stepped), narrow = bytes_of(1, layout_.parameter);
    return own + kInPlace + (wide == narrow ? 0.0 : (wide + narrow).real() / wide.real());
  }
  const bool clips = job_.train.gradient_clipping && layout_.on_host.gradients;
  const bool unscales = word != "none" && layout_.on_host.gradients && scales_loss(job_, layout_);
  return own + (clips ? kClipPasses : 0.0) + (unscales ? kInPlace : 0.0);
}

}  // namespace steelyard::step
