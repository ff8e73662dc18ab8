#include "exchange/pipeline_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "exchange/megatron_model.h"

namespace steelyard::exchange {
namespace {

constexpr std::size_t kLongestLayout = 100'000;  // characters, expanded

Error wrong(std::string_view name, std::string found, std::string accepted) {
  Error error;
  error.code = ErrorCode::impossible_combination;
  error.subject = MegatronArguments::subject(name);
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  return error;
}

// "a*3(bc)*2" as "aaabcbc".
class LayoutText {
 public:
  explicit LayoutText(std::string_view text) : text_(text) {}

  std::optional<std::string> expanded() {
    std::optional<std::string> all = sequence();
    if (at_ != text_.size()) return std::nullopt;
    return all;
  }

 private:
  std::optional<std::string> sequence() {
    std::string all;
    while (at_ < text_.size() && text_[at_] != ')') {
      std::optional<std::string> unit = one();
      if (!unit) return std::nullopt;
      const std::size_t times = repeat();
      if (times * unit->size() + all.size() > kLongestLayout) return std::nullopt;
      for (std::size_t i = 0; i < times; ++i) all += *unit;
    }
    return all;
  }

  std::optional<std::string> one() {
    if (text_[at_] != '(') return std::string(1, text_[at_++]);
    if (++depth_ > 8) return std::nullopt;
    ++at_;
    std::optional<std::string> inner = sequence();
    if (at_ >= text_.size()) return std::nullopt;
    ++at_;
    --depth_;
    return inner;
  }

  std::size_t repeat() {
    if (at_ >= text_.size() || text_[at_] != '*') return 1;
    ++at_;
    std::size_t times = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      times = std::min(times * 10 + static_cast<std::size_t>(text_[at_] - '0'), kLongestLayout);
    }
    return times;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

Result<PipelineLayout> from_layout(const std::string& text, std::int64_t stages) {
  constexpr std::string_view kName = "pipeline-model-parallel-layout";
  std::string plain;
  for (char c : text) {
    if (c != ',' && c != ' ') plain += c;
  }
  const std::optional<std::string> expanded = LayoutText(plain).expanded();
  if (!expanded || expanded->find_first_not_of("EtmL|") != std::string::npos) {
    return fail(wrong(kName, text, "E, t, m and L with | between stages, as in Et*3|(tt|)*6mL"));
  }
  PipelineLayout layout;
  layout.stages = stages;
  layout.layers.push_back(0);
  for (char c : *expanded) {
    if (c == '|') layout.layers.push_back(0);
    if (c == 't') ++layout.layers.back();
  }
  const auto parts = static_cast<std::int64_t>(layout.layers.size());
  if (parts % stages != 0) {
    return fail(wrong(kName, fmt::format("{} parts", parts),
                      fmt::format("a multiple of the {} pipeline stages", stages)));
  }
  layout.chunks = parts / stages;
  return layout;
}

// hybrid_layer_allocation.py, select_pipeline_segment: | ends a part.
Result<PipelineLayout> from_pattern(const std::string& pattern, std::int64_t stages) {
  PipelineLayout layout;
  layout.stages = stages;
  layout.layers.push_back(0);
  for (char c : pattern.substr(0, pattern.find('/'))) {
    if (c == '|') {
      layout.layers.push_back(0);
    } else {
      ++layout.layers.back();
    }
  }
  const std::int64_t parts = std::ssize(layout.layers);
  if (parts % stages != 0) {
    return fail(wrong("hybrid-layer-pattern", fmt::format("{} parts", parts),
                      fmt::format("a multiple of the {} pipeline stages", stages)));
  }
  layout.chunks = parts / stages;
  return layout;
}

// Parts that are written out do not become others.
Result<PipelineLayout> with_chunks(PipelineLayout layout, std::optional<std::int64_t> chunks,
                                   std::string_view name) {
  if (!chunks || *chunks == layout.chunks) return layout;
  return fail(wrong(name, fmt::format("{} parts", layout.layers.size()),
                    fmt::format("{} stages of {} model chunks", layout.stages, *chunks)));
}

std::int64_t chunks_of(const MegatronArguments& arguments, std::int64_t counted,
                       std::int64_t stages) {
  if (const auto chunks = arguments.optional_whole("num-virtual-stages-per-pipeline-rank")) {
    return std::max<std::int64_t>(*chunks, 1);
  }
  const auto per_chunk = arguments.optional_whole("num-layers-per-virtual-pipeline-stage");
  if (!per_chunk || *per_chunk < 1) return 1;
  return std::max<std::int64_t>(counted / stages / *per_chunk, 1);
}

// Layers of each stage; counted: with the embedding and the loss where they count as layers.
Result<std::vector<std::int64_t>> layers_of_stages(const MegatronArguments& arguments,
                                                   std::int64_t counted, std::int64_t stages) {
  const auto first = arguments.optional_whole("decoder-first-pipeline-num-layers");
  const auto last = arguments.optional_whole("decoder-last-pipeline-num-layers");
  const std::int64_t fixed = (first ? 1 : 0) + (last ? 1 : 0);
  const std::int64_t rest = counted - first.value_or(0) - last.value_or(0);
  const std::int64_t others = stages - fixed;
  if (rest < 0 || (others > 0 ? rest % others != 0 : rest != 0)) {
    return fail(wrong("num-layers", fmt::format("{} layers over {} stages", rest, others),
                      "a number of layers that the pipeline stages divide"));
  }
  std::vector<std::int64_t> each(static_cast<std::size_t>(stages), others > 0 ? rest / others : 0);
  if (first) each.front() = *first;
  if (last) each.back() = *last;
  return each;
}

}  // namespace

bool PipelineLayout::even() const {
  return std::adjacent_find(layers.begin(), layers.end(), std::not_equal_to<>()) == layers.end();
}

std::vector<std::int64_t> PipelineLayout::stage_layers() const {
  std::vector<std::int64_t> sums(static_cast<std::size_t>(stages), 0);
  for (std::size_t i = 0; i < layers.size(); ++i) sums[i % sums.size()] += layers[i];
  return sums;
}

Result<PipelineLayout> pipeline_layout(const MegatronArguments& arguments, std::int64_t layers,
                                       const PipelineSizes& sizes) {
  const std::int64_t stages =
      sizes.stages.value_or(std::max<std::int64_t>(arguments.whole("pipeline-model-parallel-size"), 1));
  const std::string text = arguments.text("pipeline-model-parallel-layout");
  if (!text.empty()) {
    STEELYARD_TRY(layout, from_layout(text, stages));
    return with_chunks(std::move(layout), sizes.chunks, "pipeline-model-parallel-layout");
  }
  const std::string pattern = hybrid_pattern(arguments);
  if (pattern.find('|') != std::string::npos) {
    STEELYARD_TRY(layout, from_pattern(pattern, stages));
    return with_chunks(std::move(layout), sizes.chunks, "hybrid-layer-pattern");
  }
  const std::int64_t embedding = arguments.flag("account-for-embedding-in-pipeline-split") ? 1 : 0;
  const std::int64_t loss = arguments.flag("account-for-loss-in-pipeline-split") ? 1 : 0;
  PipelineLayout layout;
  layout.stages = stages;
  layout.chunks = sizes.chunks.value_or(chunks_of(arguments, layers + embedding + loss, stages));
  STEELYARD_TRY(each, layers_of_stages(arguments, layers + embedding + loss, stages));
  for (std::int64_t chunk = 0; chunk < layout.chunks; ++chunk) {
    for (std::int64_t stage : each) {
      if (stage % layout.chunks != 0) {
        return fail(wrong("num-virtual-stages-per-pipeline-rank", std::to_string(layout.chunks),
                          fmt::format("a divisor of the {} layers of a stage", stage)));
      }
      layout.layers.push_back(stage / layout.chunks);
    }
  }
  layout.layers.front() -= embedding;
  layout.layers.back() -= loss;
  return layout;
}

}  // namespace steelyard::exchange
