#include "model/layer_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/suggest.h"

namespace steelyard::model {

namespace {

constexpr int kDeepest = 32;  // layers inside of layers
constexpr Limits kDimensions{1, 3};

std::string shown(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ","));
}

}  // namespace

const std::vector<LayerReader::Kind>& LayerReader::kinds() {
  static const std::vector<Kind> all = {
      {"activation", &LayerReader::read_activation},
      {"add", &LayerReader::read_add},
      {"add_weight", &LayerReader::read_add_weight},
      {"attention", &LayerReader::read_attention},
      {"average_pool", &LayerReader::read_average_pool},
      {"batch_norm", &LayerReader::read_batch_norm},
      {"branches", &LayerReader::read_branches},
      {"channels_first", &LayerReader::read_channels_first},
      {"channels_last", &LayerReader::read_channels_last},
      {"class_token", &LayerReader::read_class_token},
      {"conv", &LayerReader::read_conv},
      {"drop_path", &LayerReader::read_drop_path},
      {"dropout", &LayerReader::read_dropout},
      {"first_token", &LayerReader::read_first_token},
      {"flatten", &LayerReader::read_flatten},
      {"fold", &LayerReader::read_fold},
      {"frozen_norm", &LayerReader::read_frozen_norm},
      {"gate", &LayerReader::read_gate},
      {"global_pool", &LayerReader::read_global_pool},
      {"group_norm", &LayerReader::read_group_norm},
      {"join", &LayerReader::read_join},
      {"layer_norm", &LayerReader::read_layer_norm},
      {"linear", &LayerReader::read_linear},
      {"load", &LayerReader::read_load},
      {"loss", &LayerReader::read_loss},
      {"match", &LayerReader::read_match},
      {"max_pool", &LayerReader::read_max_pool},
      {"residual", &LayerReader::read_residual},
      {"save", &LayerReader::read_save},
      {"roi_align", &LayerReader::read_roi_align},
      {"scale", &LayerReader::read_scale},
      {"shape", &LayerReader::read_shape},
      {"tokens", &LayerReader::read_tokens},
      {"transpose", &LayerReader::read_transpose},
      {"upsample", &LayerReader::read_upsample},
      {"use", &LayerReader::read_use},
      {"widen", &LayerReader::read_widen},
      {"windows", &LayerReader::read_windows},
  };
  return all;
}

const Shape* LayerReader::of_rank(LayerArguments& layer, std::size_t rank) {
  const Shape& shape = block_.shape(now_.tensor);
  if (shape.size() == rank) return &shape;
  layer.reject(layer.kind(), "a tensor " + shown(shape), fmt::format("one of {} sizes", rank));
  return nullptr;
}

const Shape* LayerReader::picture(LayerArguments& layer) {
  const Shape* shape = of_rank(layer, 4);
  if (shape == nullptr || !now_.channels_last) return shape;
  layer.reject(layer.kind(), "a picture whose channels are last", "a layer channels_first before");
  return nullptr;
}

// Variables of the current tensor.
void LayerReader::tell_sizes() {
  const Shape& shape = block_.shape(now_.tensor);
  const bool first = shape.size() == 4 && !now_.channels_last;
  scope_["in"] = first ? shape[1] : shape.back();
  scope_["h"] = shape.size() != 4 ? std::int64_t{1} : shape[first ? 2 : 1];
  scope_["w"] = shape.size() != 4 ? std::int64_t{1} : shape[first ? 3 : 2];
  scope_["tokens"] = shape.size() == 3 ? shape[1] : std::int64_t{1};
}

void LayerReader::run(const facts::Array& layers) {
  for (const facts::Value& layer : layers) {
    if (fault_) return;
    if (const facts::Object* members = layer.as_object()) {
      run_layer(*members);
    } else {
      fault_ = LayerFault{"a layer", layer.kind_name(), "a table whose first key is the kind"};
    }
  }
}

void LayerReader::run_layer(const facts::Object& members) {
  if (fault_) return;
  tell_sizes();
  LayerArguments layer(members, scope_, fault_);
  const auto found = std::find_if(kinds().begin(), kinds().end(),
                                  [&](const Kind& kind) { return layer.kind() == kind.name; });
  if (found == kinds().end()) {
    std::vector<std::string> known;
    for (const Kind& kind : kinds()) known.emplace_back(kind.name);
    fault_ =
        LayerFault{"a layer", fmt::format("\"{}\"", layer.kind()), listed(known, known.size())};
    return;
  }
  if (++depth_ > kDeepest) {
    layer.reject(layer.kind(), "more layers inside of layers", fmt::format("at most {}", kDeepest));
  } else if (layer.kind() == "residual" || layer.flag("if", true)) {
    (this->*found->read)(layer);
    layer.finish();
  }
  --depth_;
}

// A block of the description, with variables of its own.
void LayerReader::read_use(LayerArguments& layer) {
  const std::string name = layer.text("use", "");
  const facts::Value* named = network_.blocks == nullptr ? nullptr : network_.blocks->find(name);
  if (named == nullptr || named->as_array() == nullptr) {
    layer.reject("use", fmt::format("\"{}\"", name), "a list of layers under \"blocks\"");
    return;
  }
  Scope inside = scope_;
  for (auto& [key, value] : layer.others()) inside[key] = std::move(value);
  std::swap(scope_, inside);
  run(*named->as_array());
  std::swap(scope_, inside);
}

// x + layers(x), perhaps with other layers on the way of x; without the sum where "if" says so.
void LayerReader::read_residual(LayerArguments& layer) {
  const Current before = now_;
  const bool sums = layer.flag("if", true);
  const double drop = layer.real("drop_path", 0.0, 0.0, 1.0);
  const bool in_place = layer.flag("in_place", false);
  const std::string name = layer.text("name", "residual");
  const facts::Array& shortcut = layer.list("shortcut");
  run(layer.list("residual"));
  if (!sums || fault_) return;
  const TensorRef branch = block_.drop_path("drop_path", now_.tensor, drop);
  now_ = before;
  run(shortcut);
  if (fault_) return;
  if (block_.shape(branch) != block_.shape(now_.tensor)) {
    layer.reject("residual",
                 shown(block_.shape(branch)) + " beside " + shown(block_.shape(now_.tensor)),
                 "two tensors of one shape");
    return;
  }
  set(in_place ? block_.add_in_place(name, branch, now_.tensor)
               : block_.add(name, branch, now_.tensor));
}

// x * layers(x).
void LayerReader::read_gate(LayerArguments& layer) {
  const Current before = now_;
  run(layer.list("gate"));
  if (fault_) return;
  const TensorRef factor = now_.tensor;
  now_ = before;
  set(block_.multiply(layer.text("name", "gate"), before.tensor, factor));
}

// Ways that begin at the same tensor, put side by side.
void LayerReader::read_branches(LayerArguments& layer) {
  const Current before = now_;
  const auto dimension = static_cast<std::size_t>(layer.whole("dimension", 1, kDimensions));
  std::vector<TensorRef> ends;
  for (const facts::Value& branch : layer.list("branches")) {
    now_ = before;
    if (branch.as_array() == nullptr) {
      return layer.reject("branches", branch.kind_name(), "lists of layers");
    }
    run(*branch.as_array());
    if (fault_) return;
    ends.push_back(now_.tensor);
  }
  const auto fits = [&](TensorRef end) {
    Shape shape = block_.shape(end);
    Shape first = block_.shape(ends.front());
    if (shape.size() != first.size() || shape.size() <= dimension) return false;
    shape[dimension] = first[dimension];
    return shape == first;
  };
  if (ends.empty() || !std::all_of(ends.begin(), ends.end(), fits)) {
    return layer.reject("branches", "ends that do not lie side by side",
                        "one or more ends of one shape but for the joined dimension");
  }
  set(block_.concatenate(layer.text("name", "cat"), ends, dimension));
}

std::optional<LayerReader::Current> LayerReader::saved(LayerArguments& layer,
                                                       const std::string& name) {
  const auto found = saved_.find(name);
  if (found != saved_.end()) return found->second;
  layer.reject(layer.kind(), fmt::format("\"{}\"", name), "a name that a layer before saved");
  return std::nullopt;
}

void LayerReader::read_save(LayerArguments& layer) {
  saved_[layer.text("save", "")] = now_;
}

void LayerReader::read_load(LayerArguments& layer) {
  if (const auto found = saved(layer, layer.text("load", ""))) now_ = *found;
}

void LayerReader::read_add(LayerArguments& layer) {
  const auto found = saved(layer, layer.text("add", ""));
  const bool in_place = layer.flag("in_place", false);
  const std::string name = layer.text("name", "add");
  if (!found) return;
  if (block_.shape(found->tensor) != block_.shape(now_.tensor)) {
    return layer.reject("add", shown(block_.shape(found->tensor)),
                        shown(block_.shape(now_.tensor)));
  }
  set(in_place ? block_.add_in_place(name, now_.tensor, found->tensor)
               : block_.add(name, now_.tensor, found->tensor));
}

// Saved tensors side by side, in the order of their names.
void LayerReader::read_join(LayerArguments& layer) {
  const auto dimension = static_cast<std::size_t>(layer.whole("dimension", 1, kDimensions));
  std::vector<TensorRef> parts;
  for (const std::string& name : layer.texts("join")) {
    const auto found = saved(layer, name);
    if (!found) return;
    now_ = *found;
    Shape shape = block_.shape(found->tensor);
    Shape first = block_.shape(parts.empty() ? found->tensor : parts.front());
    if (shape.size() == first.size() && dimension < shape.size()) {
      shape[dimension] = first[dimension];
    }
    if (shape != first) {
      return layer.reject(
          "join", name + " " + shown(shape),
          "the shape of the others " + shown(first) + " but for the joined dimension");
    }
    parts.push_back(found->tensor);
  }
  if (parts.empty()) return layer.reject("join", "no names", "names of saved tensors");
  set(block_.concatenate(layer.text("name", "cat"), parts, dimension));
}

void LayerReader::read_loss(LayerArguments& layer) {
  const std::string name = layer.text("loss", "classification");
  std::vector<TensorRef> inputs;
  for (const std::string& of : layer.texts("inputs")) {
    const auto found = saved(layer, of);
    if (!found) return;
    inputs.push_back(found->tensor);
  }
  if (inputs.empty()) inputs.push_back(now_.tensor);
  if (name == "outputs") return set(block_.loss(OperatorKind::outputs_loss, inputs, "loss"));
  inputs.insert(inputs.end(), network_.targets.begin(), network_.targets.end());
  const auto made = [&](OperatorKind kind, std::size_t reads) {
    if (inputs.size() != reads) {
      return layer.reject("loss", fmt::format("{} inputs and targets", inputs.size()),
                          fmt::format("{}", reads));
    }
    set(block_.loss(kind, inputs, "loss"));
  };
  if (name == "classification") return made(OperatorKind::classification_loss, 2);
  if (name == "squared") return made(OperatorKind::squared_loss, 2);
  if (name == "multibox") return made(OperatorKind::multibox_loss, 4);
  layer.reject("loss", fmt::format("\"{}\"", name), "classification, multibox, outputs, squared");
}

}  // namespace steelyard::model
