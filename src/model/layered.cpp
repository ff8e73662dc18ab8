// Networks that read pictures, described as data: model_type "layers". The configuration lists the
// blocks of the network and the layers of each; this file makes one block of the graph of each of
// them. docs/model/layers.md describes the language; catalog/models/timm and torchvision hold
// networks written in it.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "model/family.h"
#include "model/image_parts.h"
#include "model/layer_reader.h"

namespace steelyard::model {

namespace {

constexpr Limits kRepeats{1, 10'000};

struct Description {
  Scope scope;
  LayerNetwork network;
  std::vector<std::string> shared;  // beginnings of names: modules that are called several times
  std::optional<LayerFault> fault;
};

// `variables` of the configuration, and what every layer may read.
void tell_variables(ConfigReader& config, const Graph& graph, Description& description) {
  if (const facts::Object* given = config.value("variables").as_object()) {
    for (const auto& [name, value] : *given) description.scope[name] = value;
  }
  description.scope["batch"] = graph.batch;
  description.scope["image_height"] = graph.image_height;
  description.scope["image_width"] = graph.image_width;
  description.scope["classes"] = config.whole({"num_classes"}, 1000, kLabelLimits);
}

// What the loader brings beside the pictures: a label each, if the configuration says nothing else.
void add_targets(ConfigReader& config, Graph& graph, Description& description) {
  const facts::Array* targets = config.value("targets").as_array();
  if (targets != nullptr) {
    graph.shared.resize(1);
    for (const facts::Value& target : *targets) {
      const facts::Object* members = target.as_object();
      if (members == nullptr) continue;
      LayerArguments row(*members, description.scope, description.fault);
      const std::string name = row.text("name", "labels");
      const bool real = row.flag("real", false);
      graph.shared.push_back(
          {name, row.wholes("shape"), real ? ElementKind::real : ElementKind::token_ids});
      row.finish();
    }
    graph.batch_tensors = graph.shared;
  }
  for (std::size_t i = 1; i < graph.shared.size(); ++i) {
    description.network.targets.push_back({true, static_cast<std::int32_t>(i)});
  }
}

// The picture's own size: one side, or height and width.
Picture picture_size(ConfigReader& config, const SampleShape& sample) {
  std::vector<std::int64_t> sides = config.whole_list({"image_size"}, {224, 224}, kSideLimits, 2);
  if (sides.size() != 2) {
    config.reject("image_size", "another list", "a whole number, or [height, width]");
    sides = {224, 224};
  }
  return picture_of(sample, sides[0], sides[1], config.whole({"in_chans"}, 3, kChannelLimits));
}

// A layer without a name of its own bears that of its kind; the second one gets a number.
void tell_apart(Block& block) {
  std::map<std::string, int> seen;
  for (Operator& op : block.operators) {
    const int number = ++seen[op.name];
    if (number > 1) op.name += fmt::format("_{}", number);
  }
}

// A module that is called on several maps (a detector's heads) has its weights once.
void share_weights(Block& block, const std::vector<std::string>& shared) {
  std::map<std::string, std::int32_t> first;
  std::vector<std::int32_t> moved;
  std::vector<Weight> left;
  for (Weight& weight : block.weights) {
    const bool of_shared = std::any_of(shared.begin(), shared.end(), [&](const std::string& name) {
      return weight.name.starts_with(name);
    });
    const auto known = first.find(weight.name);
    const bool same =
        known != first.end() && left[static_cast<std::size_t>(known->second)].shape == weight.shape;
    if (of_shared && same) {
      moved.push_back(known->second);
      continue;
    }
    moved.push_back(static_cast<std::int32_t>(left.size()));
    first.emplace(weight.name, moved.back());
    left.push_back(std::move(weight));
  }
  block.weights = std::move(left);
  for (Operator& op : block.operators) {
    for (std::int32_t& weight : op.weights) {
      if (weight >= 0) weight = moved[static_cast<std::size_t>(weight)];
    }
  }
}

void check_weights(const Block& block, std::optional<LayerFault>& fault) {
  std::set<std::string_view> seen;
  for (const Weight& weight : block.weights) {
    if (seen.insert(weight.name).second || fault) continue;
    fault = LayerFault{block.name, fmt::format("two weights \"{}\"", weight.name),
                       "a name for each layer with weights"};
  }
}

// One item of `network`: a block, or several under one name.
class Item {
 public:
  Item(const facts::Object& members, Description& description)
      : description_(description),
        arguments_(head_of(members), description.scope, description.fault) {
    name_ = arguments_.text("block", "");
    repeat_ = arguments_.whole("repeat", 1, kRepeats);
    if (name_.empty()) arguments_.reject("block", "nothing", "the name of the block's module");
  }

  [[nodiscard]] std::int64_t repeat() const { return repeat_; }

  Block build(const Graph& graph, std::int64_t index, bool first, LayerReader::Current& now) {
    Scope scope = description_.scope;
    scope["index"] = index;
    BlockBuilder block(graph, name_);
    if (!first) now.tensor = block.input(now_shape_);
    LayerReader reader(block, description_.network, std::move(scope), description_.fault);
    reader.start(now);
    if (layers_ != nullptr) {
      reader.run(*layers_);
    } else {
      reader.run_layer(layer_);
    }
    now = reader.current();
    now_shape_ = block.shape(now.tensor);
    Block built = block.finish(now.tensor);
    tell_apart(built);
    share_weights(built, description_.shared);
    check_weights(built, description_.fault);
    return built;
  }

  void starts_with(Shape shape) { now_shape_ = std::move(shape); }
  [[nodiscard]] const Shape& ends_with() const { return now_shape_; }

 private:
  // The keys of the item itself; what else it holds is its layers, or one layer.
  const facts::Object& head_of(const facts::Object& members) {
    for (const auto& [key, value] : members) {
      if (key == "block" || key == "repeat") {
        head_.emplace_back(key, value);
      } else if (key == "layers" && value.as_array() != nullptr) {
        layers_ = value.as_array();
      } else {
        layer_.emplace_back(key, value);
      }
    }
    return head_;
  }

  Description& description_;
  facts::Object head_, layer_;
  const facts::Array* layers_ = nullptr;
  LayerArguments arguments_;
  std::string name_;
  std::int64_t repeat_ = 1;
  Shape now_shape_;
};

// Equal blocks in a row become one that repeats; so do short cycles (windows and shifted windows).
void add_blocks(Graph& graph, std::vector<Block> blocks) {
  std::vector<int> kinds;
  std::vector<const Block*> known;
  for (const Block& block : blocks) {
    const auto alike = std::find_if(known.begin(), known.end(),
                                    [&](const Block* other) { return *other == block; });
    kinds.push_back(static_cast<int>(alike - known.begin()));
    if (alike == known.end()) known.push_back(&block);
  }
  add_layers(graph, kinds, [&](int kind) { return *known[static_cast<std::size_t>(kind)]; });
}

void add_network(ConfigReader& config, Graph& graph, Description& description) {
  const facts::Array* items = config.value("network").as_array();
  if (items == nullptr || items->empty()) {
    return config.reject("network", config.value("network").kind_name(),
                         "a list of blocks, each with its layers");
  }
  LayerReader::Current now{kPixels, false};
  Shape shape = graph.shared.front().shape;
  bool first = true;
  for (const facts::Value& value : *items) {
    const facts::Object* members = value.as_object();
    if (members == nullptr) {
      return config.reject("network", value.kind_name(), "tables, each of one block");
    }
    Item item(*members, description);
    item.starts_with(shape);
    std::vector<Block> blocks;
    for (std::int64_t i = 0; i < item.repeat() && !description.fault; ++i) {
      blocks.push_back(item.build(graph, i, first, now));
      first = false;
    }
    if (description.fault) return;
    shape = item.ends_with();
    add_blocks(graph, std::move(blocks));
  }
  for (std::size_t i = 1; i + 1 < graph.segments.size(); ++i) {
    graph.layers += graph.segments[i].repeat * std::ssize(graph.segments[i].blocks);
  }
  const std::vector<Operator>& last = graph.segments.back().blocks.back().operators;
  if (last.empty() || !is_loss(last.back().kind)) {
    config.reject("network", "a last block without a loss", "a layer loss at its end");
  }
}

}  // namespace

Graph build_layered(ConfigReader& config, const SampleShape& sample) {
  Graph graph = start_picture_graph(config, sample, picture_size(config, sample));
  Description description;
  description.network.blocks = &config.value("blocks");
  if (const facts::Array* shared = config.value("shared").as_array()) {
    for (const facts::Value& name : *shared) {
      if (name.as_text() != nullptr) description.shared.push_back(*name.as_text());
    }
  }
  tell_variables(config, graph, description);
  add_targets(config, graph, description);
  add_network(config, graph, description);
  if (description.fault) {
    config.reject("network: " + description.fault->subject, description.fault->found,
                  description.fault->accepted);
  }
  return graph;
}

}  // namespace steelyard::model
