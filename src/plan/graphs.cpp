#include "plan/graphs.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "plan/objective.h"
#include "step/workshop.h"

namespace steelyard::plan {
namespace {

bool alike(const model::SampleShape& a, const model::SampleShape& b) {
  const auto& [batch, sequence, height, width, decoder_sequence, frames, images, audio] = a;
  return batch == b.batch && sequence == b.sequence && height == b.height && width == b.width &&
         decoder_sequence == b.decoder_sequence && frames == b.frames && images == b.images &&
         audio == b.audio_seconds;
}

bool alike(const facts::ModelSource& a, const facts::ModelSource& b) {
  return a.onnx == b.onnx && a.stored == b.stored && a.name == b.name && a.config == b.config;
}

class Graphs {
 public:
  [[nodiscard]] GraphRef find(const facts::ModelSource& source,
                              const model::SampleShape& sample) const {
    const std::shared_lock lock(mutex_);
    const auto known = std::ranges::find_if(known_, [&](const Known& one) {
      return alike(one.sample, sample) && alike(one.source, source);
    });
    return known == known_.end() ? nullptr : known->graph;
  }
  void add(const facts::ModelSource& source, const model::SampleShape& sample, GraphRef graph) {
    const std::unique_lock lock(mutex_);
    if (known_.size() >= kMost) known_.clear();
    known_.push_back({source, sample, std::move(graph)});
  }

 private:
  struct Known {
    facts::ModelSource source;
    model::SampleShape sample;
    GraphRef graph;
  };
  static constexpr std::size_t kMost = 512;

  mutable std::shared_mutex mutex_;
  std::vector<Known> known_;
};

}  // namespace

Result<GraphRef> built_graph(const facts::ModelSource& source, const model::SampleShape& sample,
                             step::Workshop* workshop) {
  if (workshop != nullptr) {
    if (GraphRef known = workshop->shelf<Graphs>().find(source, sample)) return known;
  }
  STEELYARD_TRY(graph, model::build(source, sample));
  GraphRef made = std::make_shared<const model::Graph>(std::move(graph));
  if (workshop != nullptr) workshop->shelf<Graphs>().add(source, sample, made);
  return made;
}

Result<GraphRef> shared_graph(const facts::ModelSource& source, const facts::Job& job,
                              const model::SampleShape& sample, step::Workshop* workshop) {
  // Of others the objective and packing change the graph.
  if (job.train.objective == facts::Objective::sft && !job.train.packed) {
    return built_graph(source, sample, workshop);
  }
  STEELYARD_TRY(graph, trained_graph(source, job, sample));
  return std::make_shared<const model::Graph>(std::move(graph));
}

}  // namespace steelyard::plan
