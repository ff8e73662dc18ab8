// What OnnxLowering does about a batch that the file fixes where the job wants another one.
#include <fmt/format.h>

#include <algorithm>

#include "model/onnx_lowering.h"

namespace steelyard::model {

void OnnxLowering::place(OnnxValue& value, BatchPlaces places) {
  if (std::none_of(places.begin(), places.end(), [](BatchPlace p) { return p.there(); })) {
    places.clear();
  }
  value.places = std::move(places);
  value.strides = contiguous_strides(sized(value.shape, value.places));
  if (!value.is_tensor()) return;
  auto& table = value.ref.shared ? shared_places_ : places_;
  const auto at = static_cast<std::size_t>(value.ref.index);
  if (table.size() <= at) table.resize(at + 1);
  table[at] = value.places;
}

void OnnxLowering::refuse_batch(const OnnxCall& call, const std::string& what) {
  const std::string title = call.node.name.empty()
                                ? call.node.op_type
                                : fmt::format("{} ({})", call.node.name, call.node.op_type);
  refuse({.code = ErrorCode::impossible_combination,
          .subject = fmt::format("{}: node {}", name_, title),
          .found = fmt::format("train.micro_batch = {}, where input {} fixes a batch of {} that is "
                               "{}",
                               graph.batch, batch_input, fixed_batch, what),
          .accepted =
              fmt::format("train.micro_batch = {}, or a file whose batch is open", fixed_batch),
          .hint = fmt::format("torch.onnx.export(..., dynamic_axes={{\"{0}\": {{0: \"batch\"}}}}), "
                              "with dynamo=True dynamic_shapes={{\"{0}\": {{0: "
                              "torch.export.Dim(\"batch\")}}}}",
                              batch_input)});
}

// A value beside others of the batch: made anew for it where it is a constant, repeated where it
// is a weight, which the exporter repeated itself.
OnnxValue OnnxLowering::with_place(const OnnxCall& call, const OnnxValue& value,
                                   const BatchPlaces& places) {
  OnnxValue placed = value;
  if (value.is_tensor()) {
    const Shape strides = value.strides;
    const bool in_order = lies_in_order(value.shape, strides);
    place(placed, places);
    if (!in_order) placed.strides = strides;
    return placed;
  }
  if (value.is_weight()) {
    OnnxValue once = value;
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (places[i].there()) once.shape[i] /= fixed_batch;
    }
    if (once.shape != value.shape && value.initializers.size() == 1 &&
        value.initializers.front()->dims == value.shape) {
      const facts::OnnxTensor* stored = value.initializers.front();
      facts::OnnxTensor& kept = renamed_.emplace_back(*stored);
      kept.dims = once.shape;
      once.initializers = {&kept};
    }
    placed = emit(OperatorKind::expand, call, {&once}, value.shape, value.kind);
    place(placed, places);
    return placed;
  }
  const TensorRef ref = operand(call, value);
  placed.ref = ref;
  placed.producer = -1;
  place(placed, places);
  return placed;
}

void OnnxLowering::meet(const OnnxCall& call, std::vector<OnnxValue>& operands,
                        const OnnxMeeting& meeting) {
  if (!moves_batch()) return;
  std::size_t rank = 0;
  for (const OnnxValue& operand : operands) rank = std::max(rank, operand.shape.size());
  // By the distance from the last dimension.
  std::vector<std::pair<std::int64_t, BatchPlace>> met(rank);
  for (const OnnxValue& operand : operands) {
    for (std::size_t i = 0; i < operand.places.size(); ++i) {
      const BatchPlace place = operand.places[i];
      const std::size_t back = operand.shape.size() - 1 - i;
      const bool differs = back < meeting.but_for_last || rank - 1 - back == meeting.but_for;
      if (place.there() && !differs) met[back] = {operand.shape[i], place};
    }
  }
  for (OnnxValue& operand : operands) {
    BatchPlaces places = operand.places;
    places.resize(operand.shape.size());
    bool hidden = false;
    for (std::size_t i = 0; i < places.size(); ++i) {
      const auto& [size, place] = met[operand.shape.size() - 1 - i];
      // What is repeated once beside a batch of 1 is repeated for every other one too.
      const bool repeats = meeting.broadcasts && size == 1;
      if (!place.there() || places[i].there() || operand.shape[i] != size || repeats) continue;
      places[i] = place;
      hidden = true;
    }
    if (hidden && operand.numel() > 0) operand = with_place(call, operand, places);
  }
}

// Reductions may take the batch away; nothing else loses it.
void OnnxLowering::check_batch(const OnnxCall& call) {
  const bool reduces =
      call.node.op_type.starts_with("Reduce") || call.node.op_type.starts_with("Arg");
  if (reduces || !well()) return;
  const bool there = std::any_of(call.in.begin(), call.in.end(), [](const OnnxValue* value) {
    return value != nullptr && !value->places.empty();
  });
  if (!there) return;
  for (const OnnxValue& value : call.out) {
    if (!value.is_tensor() || !value.places.empty() || value.numel() == 0) continue;
    return refuse_batch(call, fmt::format("baked into the shape {}", text_of(value.shape)));
  }
}

void OnnxLowering::move_batch() {
  places_.resize(block_.tensors.size());
  for (std::size_t i = 0; i < block_.tensors.size(); ++i) {
    block_.tensors[i].shape = sized(block_.tensors[i].shape, places_[i]);
  }
  shared_places_.resize(graph.shared.size());
  for (std::size_t i = 0; i < graph.shared.size(); ++i) {
    graph.shared[i].shape = sized(graph.shared[i].shape, shared_places_[i]);
  }
  graph.batch_tensors = graph.shared;
}

}  // namespace steelyard::model
