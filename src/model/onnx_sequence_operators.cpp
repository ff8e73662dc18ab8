// Lists of values and values that may be missing: what a node puts in and another takes out is
// followed by name, so that neither costs anything.
#include <fmt/format.h>

#include <memory>
#include <utility>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using Values = std::vector<OnnxValue>;

constexpr std::size_t kMostValues = 256;  // of one list

OnnxValue list_of(Values values) {
  OnnxValue list;
  list.sequence = std::make_shared<const Values>(std::move(values));
  return list;
}

// Nothing where the input is none; `lower` refuses that.
const Values* values_of(const OnnxCall& call) {
  if (call.at(0).sequence != nullptr) return call.at(0).sequence.get();
  call.refuse("no sequence", "one that nodes of the graph made");
  return nullptr;
}

void lower_sequence_construct(OnnxCall& call) {
  Values values;
  for (std::size_t i = 0; i < call.in.size(); ++i) {
    if (!call.has(i)) return call.refuse("an element that is not there", "tensors");
    values.push_back(call.at(i));
  }
  call.out[0] = list_of(std::move(values));
}

void lower_sequence_empty(OnnxCall& call) {
  call.out[0] = list_of({});
}

void lower_sequence_at(OnnxCall& call) {
  const Values* values = values_of(call);
  if (values == nullptr) return;
  const std::vector<std::int64_t> place = call.known(1, "places");
  if (!call.well()) return;
  if (place.size() != 1) return call.refuse("no single place", "one number");
  const std::int64_t at = call.axis(place.front(), std::ssize(*values));
  if (call.well()) call.out[0] = (*values)[static_cast<std::size_t>(at)];
}

void lower_sequence_insert(OnnxCall& call) {
  const Values* before = values_of(call);
  if (before == nullptr) return;
  Values values = *before;
  if (values.size() >= kMostValues) {
    return call.refuse(fmt::format("a sequence of more than {} values", kMostValues), "fewer");
  }
  std::int64_t at = std::ssize(values);
  if (call.has(2)) {
    const std::vector<std::int64_t> place = call.known(2, "places");
    if (!call.well()) return;
    if (place.size() != 1) return call.refuse("no single place", "one number");
    at = call.axis(place.front(), std::ssize(values) + 1);
    if (!call.well()) return;
  }
  values.insert(values.begin() + at, call.at(1));
  call.out[0] = list_of(std::move(values));
}

void lower_sequence_erase(OnnxCall& call) {
  const Values* before = values_of(call);
  if (before == nullptr) return;
  Values values = *before;
  std::int64_t at = std::ssize(values) - 1;
  if (call.has(1)) {
    const std::vector<std::int64_t> place = call.known(1, "places");
    if (!call.well()) return;
    if (place.size() != 1) return call.refuse("no single place", "one number");
    at = place.front();
  }
  at = call.axis(at, std::ssize(values));
  if (!call.well()) return;
  values.erase(values.begin() + at);
  call.out[0] = list_of(std::move(values));
}

void lower_sequence_length(OnnxCall& call) {
  const Values* values = values_of(call);
  if (values == nullptr) return;
  call.out[0] = constant_like({}, ElementKind::index);
  call.out[0].wholes = {std::ssize(*values)};
}

// Joined along a dimension, or along a new one that each value gets first (torch.stack).
void lower_concat_from_sequence(OnnxCall& call) {
  const Values* values = values_of(call);
  if (values == nullptr) return;
  if (values->empty()) return call.refuse("an empty sequence", "one with a tensor");
  Values parts = *values;
  if (call.whole("new_axis", 0) != 0) {
    const std::int64_t at = call.axis(call.whole("axis", 0), parts.front().rank() + 1);
    if (!call.well()) return;
    for (OnnxValue& part : parts) {
      if (part.rank() < at) return call.refuse("shapes that do not meet", "equal ones");
      Shape shape = part.shape;
      shape.insert(shape.begin() + at, 1);
      BatchPlaces places = part.places;
      if (!places.empty()) places.insert(places.begin() + at, BatchPlace());
      part = call.lowering.viewed(call, part, shape, std::move(places));
      if (!call.well()) return;
    }
  }
  call.in.clear();
  for (const OnnxValue& part : parts) call.in.push_back(&part);
  onnx_index_operators().at("Concat").lower(call);
  call.in.clear();  // `parts` ends here
}

void lower_same(OnnxCall& call) {
  call.out[0] = call.at(0);
}

void lower_optional(OnnxCall& call) {
  if (!call.has(0)) {
    return call.refuse("an optional value that is not there", "one that is",
                       "export the branch in which it is given");
  }
  call.out[0] = call.at(0);
}

void lower_has_element(OnnxCall& call) {
  call.out[0] = constant_like({}, ElementKind::boolean);
  call.out[0].wholes = {call.has(0) ? 1 : 0};
}

}  // namespace

const OnnxOperators& onnx_sequence_operators() {
  static const OnnxOperators kOperators = {
      {"ConcatFromSequence", {lower_concat_from_sequence}},
      {"Optional", {lower_optional, 0}},
      {"OptionalGetElement", {lower_same}},
      {"OptionalHasElement", {lower_has_element, 0}},
      {"SequenceAt", {lower_sequence_at, 2}},
      {"SequenceConstruct", {lower_sequence_construct}},
      {"SequenceEmpty", {lower_sequence_empty, 0}},
      {"SequenceErase", {lower_sequence_erase}},
      {"SequenceInsert", {lower_sequence_insert, 2}},
      {"SequenceLength", {lower_sequence_length}},
  };
  return kOperators;
}

}  // namespace steelyard::model
