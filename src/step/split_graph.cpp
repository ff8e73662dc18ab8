#include "step/split_graph.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>

#include "step/companions.h"
#include "step/embedding_placement.h"
#include "step/expert_parallel.h"
#include "step/frozen_parts.h"
#include "step/fused_projection.h"
#include "step/tensor_parallel.h"
#include "step/workshop.h"

namespace steelyard::step {
namespace {

// The keys and values of a token come from all ranks of the context group.
void spread_context(model::Graph& graph, std::int64_t ranks) {
  for (model::Segment& segment : graph.segments) {
    for (model::Block& block : segment.blocks) {
      for (model::Operator& op : block.operators) op.attention.context = ranks;
    }
  }
}

// What splitting reads of a job that changes nothing else of the graph.
struct Cut {
  std::string projection;  // the framework's words
  bool cuts_positions = false, whole_tables = false;
  Fp8 fp8;
  std::int64_t tensor = 1, context = 1, expert = 1, expert_tensor = 1;
  std::int64_t data = 1;  // only experts ask for it
  bool sequence_parallel = false;

  friend bool operator==(const Cut&, const Cut&) = default;
};

// Sequence-parallel ranks that hold their own tokens' rows of the table of positions alone.
bool cuts_positions(const facts::Job& job, const facts::FrameworkProfile& profile) {
  const auto word = profile.operators.find("position_table");
  return job.parallel.sequence_parallel && word != profile.operators.end() &&
         word->second == "own_rows";
}

// Tensor-parallel ranks that each hold the whole table of tokens.
bool keeps_tables(const facts::Job& job, const facts::FrameworkProfile& profile) {
  const auto word = profile.operators.find("token_table");
  return job.parallel.tensor > 1 && word != profile.operators.end() && word->second == "whole";
}

Cut cut_of(const facts::Job& job, const facts::FrameworkProfile& profile, const Fp8& fp8) {
  const facts::ParallelKeys& p = job.parallel;
  const auto word = profile.operators.find("attention_projection");
  Cut cut{.projection = word == profile.operators.end() ? std::string() : word->second,
          .cuts_positions = cuts_positions(job, profile),
          .whole_tables = keeps_tables(job, profile),
          .fp8 = fp8,
          .tensor = p.tensor,
          .context = p.context,
          .expert = p.expert,
          .expert_tensor = p.expert_tensor,
          .sequence_parallel = p.sequence_parallel};
  if (p.expert > 1 || p.expert_tensor > 1) cut.data = p.data.value_or(1);
  return cut;
}

// No companion, adapter, frozen part or placed table: the graph is split and nothing else.
bool splits_only(const facts::Job& job, const std::vector<Companion>& companions) {
  return companions.empty() && job.train.method == facts::Method::full &&
         job.train.trainable.empty() && job.train.frozen.empty() &&
         job.parallel.embeddings == facts::EmbeddingPlacement::replicated &&
         job.offload.embeddings == facts::EmbeddingOffload::none;
}

bool same(const model::Graph& a, const model::Graph& b) {
  return alike_but_segments(a, b) &&
         std::ranges::equal(a.segments, b.segments, [](const auto& x, const auto& y) {
           return x.repeat == y.repeat && x.blocks == y.blocks;
         });
}

using Known = std::shared_ptr<const SplitGraph>;

class Splits {
 public:
  [[nodiscard]] Known find(const model::Graph& graph, const Cut& cut) const {
    const std::shared_lock lock(mutex_);
    const auto known = std::ranges::find_if(
        known_, [&](const Entry& one) { return one.cut == cut && same(one.graph, graph); });
    return known == known_.end() ? nullptr : known->split;
  }
  void add(const model::Graph& graph, const Cut& cut, Known split) {
    const std::unique_lock lock(mutex_);
    if (known_.size() >= kMost) known_.clear();
    known_.push_back({cut, graph, std::move(split)});
  }

 private:
  struct Entry {
    Cut cut;
    model::Graph graph;
    Known split;
  };
  static constexpr std::size_t kMost = 512;

  mutable std::shared_mutex mutex_;
  std::vector<Entry> known_;
};

Result<Known> make(const model::Graph& graph, const facts::Job& job,
                   const facts::FrameworkProfile& profile, const AdapterHabits& habits,
                   const Fp8& fp8, const std::vector<Companion>& companions, const ModelUse& use) {
  const facts::ParallelKeys& parallel = job.parallel;
  STEELYARD_TRY(joined, with_companions(graph, job, companions));
  STEELYARD_TRY(projected, with_own_projections(joined, profile));
  STEELYARD_TRY(open, with_frozen_parts(projected, job));
  STEELYARD_TRY(adapted, with_method(open, job, habits));
  const model::Graph trained =
      use.adapters_off ? without_adapters(std::move(adapted)) : std::move(adapted);
  STEELYARD_TRY(placed, place_tables(trained, job));
  STEELYARD_TRY(spread, spread_experts(placed, parallel));
  STEELYARD_TRY(split, split_over_ranks(spread, parallel.tensor, parallel.sequence_parallel));
  if (keeps_tables(job, profile)) restore_tables(split, spread);
  if (cuts_positions(job, profile)) cut_positions(split, parallel.tensor);
  auto made = std::make_shared<SplitGraph>();
  made->local = with_fp8(std::move(split), fp8);
  spread_context(made->local, parallel.context);
  made->whole = {0, with_fp8(trained, fp8), {0}, true};
  made->held = {0, with_fp8(std::move(placed), fp8), {0}, true};
  return made;
}

}  // namespace

model::Graph without_segments(const model::Graph& graph) {
  return {.name = graph.name,
          .model_type = graph.model_type,
          .batch = graph.batch,
          .sequence = graph.sequence,
          .decoder_sequence = graph.decoder_sequence,
          .vocabulary = graph.vocabulary,
          .hidden = graph.hidden,
          .layers = graph.layers,
          .max_sequence = graph.max_sequence,
          .image_height = graph.image_height,
          .image_width = graph.image_width,
          .images = graph.images,
          .visual_tokens = graph.visual_tokens,
          .row_bytes = graph.row_bytes,
          .frames = graph.frames,
          .audio_samples = graph.audio_samples,
          .library = graph.library,
          .batch_tensors = graph.batch_tensors,
          .shared = graph.shared,
          .segments = {},
          .tail = graph.tail};
}

bool alike_but_segments(const model::Graph& a, const model::Graph& b) {
  // Each member by name: one more in the struct does not compile here.
  const auto& [name, type, batch, sequence, decoder_sequence, vocabulary, hidden, layers, longest,
               height, width, images, visual, row, frames, audio, library, brought, shared,
               segments, tail] = a;
  static_cast<void>(segments);
  return batch == b.batch && sequence == b.sequence && decoder_sequence == b.decoder_sequence &&
         vocabulary == b.vocabulary && hidden == b.hidden && layers == b.layers &&
         longest == b.max_sequence && height == b.image_height && width == b.image_width &&
         images == b.images && visual == b.visual_tokens && row == b.row_bytes &&
         frames == b.frames && audio == b.audio_samples && tail == b.tail && name == b.name &&
         type == b.model_type && library == b.library && brought == b.batch_tensors &&
         shared == b.shared;
}

Result<std::shared_ptr<const SplitGraph>> split_graph(const model::Graph& graph,
                                                      const facts::Job& job,
                                                      const facts::FrameworkProfile& profile,
                                                      const AdapterHabits& habits, const Fp8& fp8,
                                                      const std::vector<Companion>& companions,
                                                      const ModelUse& use) {
  if (use.workshop == nullptr || !splits_only(job, companions)) {
    return make(graph, job, profile, habits, fp8, companions, use);
  }
  Splits& splits = use.workshop->shelf<Splits>();
  const Cut cut = cut_of(job, profile, fp8);
  if (Known known = splits.find(graph, cut)) return known;
  STEELYARD_TRY(made, make(graph, job, profile, habits, fp8, companions, use));
  splits.add(graph, cut, made);
  return made;
}

}  // namespace steelyard::step
