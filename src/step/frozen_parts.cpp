#include "step/frozen_parts.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "step/by_layer.h"

namespace steelyard::step {

namespace {

// `*` any text, everything else itself; from the first character to the last.
bool matches(std::string_view pattern, std::string_view text) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == text;
  if (!text.starts_with(pattern.substr(0, star))) return false;
  const std::string_view rest = pattern.substr(star + 1);
  for (std::size_t from = star; from <= text.size(); ++from) {
    if (matches(rest, text.substr(from))) return true;
  }
  return false;
}

using Patterns = std::vector<std::string>;

struct Freezing {
  const Patterns& trainable;
  const Patterns& frozen;
  std::set<std::string, std::less<>> used = {};

  bool any_of(const Patterns& patterns, std::string_view name) {
    bool found = false;
    for (const std::string& pattern : patterns) {
      if (!names_part(pattern, name)) continue;
      used.insert(pattern);
      found = true;
    }
    return found;
  }
  bool trains(const std::string& name) {
    const bool named = trainable.empty() || any_of(trainable, name);
    return !any_of(frozen, name) && named;
  }
};

void freeze(model::Block& block, const std::string& prefix, Freezing& freezing) {
  for (model::Weight& weight : block.weights) {
    const std::string& own = weight.tied_to.empty() ? weight.name : weight.tied_to;
    const bool trains = freezing.trains(weight.tied_to.empty() ? prefix + own : own);
    weight.trains = weight.trains && trains;
  }
}

}  // namespace

bool names_part(std::string_view pattern, std::string_view name) {
  for (std::size_t from = 0; from <= name.size();) {
    for (std::size_t to = name.find('.', from);; to = name.find('.', to + 1)) {
      const std::size_t end = to == std::string_view::npos ? name.size() : to;
      if (matches(pattern, name.substr(from, end - from))) return true;
      if (to == std::string_view::npos) break;
    }
    const std::size_t dot = name.find('.', from);
    if (dot == std::string_view::npos) return false;
    from = dot + 1;
  }
  return false;
}

Result<model::Graph> with_frozen_parts(model::Graph graph, const facts::Job& job) {
  const facts::TrainKeys& train = job.train;
  if (train.trainable.empty() && train.frozen.empty()) return graph;
  static const Patterns kAll;
  const bool adapters = train.method != facts::Method::full;
  Freezing freezing{adapters ? kAll : train.trainable, train.frozen};
  graph = by_layer(std::move(graph), [&](model::Block& block, std::size_t, const auto& prefix) {
    freeze(block, prefix, freezing);
  });
  for (const Patterns* patterns : {&train.trainable, &train.frozen}) {
    const bool trainable = patterns == &train.trainable;
    for (const std::string& pattern : *patterns) {
      if (freezing.used.contains(pattern) || (trainable && adapters)) continue;
      const model::Segment& front = graph.segments.at(graph.segments.size() > 1 ? 1 : 0);
      return fail({ErrorCode::bad_input,
                   trainable ? "train.trainable" : "train.frozen",
                   "\"" + pattern + "\"",
                   "whole parts of a weight's name between dots, as of " +
                       front.blocks.front().name + ".0." +
                       front.blocks.front().weights.front().name,
                   "no weight of the model has that in its name",
                   "",
                   {}});
    }
  }
  return graph;
}

Flops backward_flops(const model::Graph& graph) {
  Flops sum;
  bool asked = false;  // something before wants a gradient
  const auto round = [&](const model::Segment& segment) {
    Flops flops;
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        const Flops once = model::forward_flops(op, block, graph);
        const bool trains = std::any_of(op.weights.begin(), op.weights.end(), [&](auto weight) {
          if (weight < 0) return false;
          const model::Weight& held = block.weights[static_cast<std::size_t>(weight)];
          return held.trains && !held.unread;
        });
        // Of an operator without weights both operands' gradients: attention's.
        const double parts = (asked ? 1.0 : 0.0) + (trains || (op.weights.empty() && asked));
        flops += once * parts;
        asked = asked || trains;
      }
    }
    return flops;
  };
  for (const model::Segment& segment : graph.segments) {
    sum += round(segment);
    if (segment.repeat > 1) sum += round(segment) * static_cast<double>(segment.repeat - 1);
  }
  return sum;
}

}  // namespace steelyard::step
