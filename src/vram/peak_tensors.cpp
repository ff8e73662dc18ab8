#include "vram/peak_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <compare>
#include <map>
#include <string_view>
#include <utility>

namespace steelyard::vram {

std::string layer_text(const step::Body& body, std::int64_t layer) {
  return body.repeat == 1 ? body.layer : body.layer + "." + std::to_string(layer);
}

facts::PeakAt described(const step::Program& program, const Place& place) {
  facts::PeakAt at;
  at.phase = place.phase == nullptr ? "setup" : step::name_of(place.phase->kind);
  // The optimizer works on all layers alike: where it is at the peak says nothing.
  const bool of_a_layer = place.body != nullptr &&
                          place.phase->kind != step::PhaseKind::optimizer &&
                          place.phase->kind != step::PhaseKind::clip;
  if (of_a_layer) at.layer = layer_text(*place.body, place.layer);
  if (place.name >= 0) at.operation = program.names[static_cast<std::size_t>(place.name)];
  return at;
}

void PeakTensors::born(Index at, std::int32_t slot, const Place& place) {
  lives_[at] = {slot, place, -1};
}

void PeakTensors::moved(Index from, Index to) {
  const auto found = lives_.find(from);
  if (found == lives_.end()) return;
  const Life life = found->second;
  lives_.erase(found);
  lives_[to] = life;
}

void PeakTensors::died(Index at, const Place& place) {
  const auto found = lives_.find(at);
  if (found == lives_.end()) return;
  const std::int32_t tensor = found->second.tensor;
  if (tensor >= 0) tensors_[static_cast<std::size_t>(tensor)].freed = place;
  lives_.erase(found);
}

void PeakTensors::remember(Index at, Bytes bytes, facts::VramCategory category) {
  const auto found = lives_.find(at);
  if (found == lives_.end()) return;
  found->second.tensor = static_cast<std::int32_t>(tensors_.size());
  tensors_.push_back({found->second.slot, bytes, category, found->second.born, {}});
}

namespace {

// Layers that a group's tensors were born or freed in.
struct Layers {
  const step::Body* body = nullptr;
  std::int64_t first = 0, last = 0;

  void add(const Place& place) {
    if (body == nullptr) first = last = place.layer;
    body = place.body;
    first = std::min(first, place.layer);
    last = std::max(last, place.layer);
  }
  [[nodiscard]] std::string text() const {
    if (body == nullptr) return "";
    if (first == last) return layer_text(*body, first);
    return fmt::format("{}.{}-{}", body->layer, first, last);
  }
};

// "mlp.experts.7.gate_proj" is "mlp.experts.*.gate_proj": experts are alike, and there are
// hundreds.
std::string without_expert(const std::string& name) {
  constexpr std::string_view kExperts = "experts.";
  const std::size_t number = name.find(kExperts) + kExperts.size();
  if (number < kExperts.size()) return name;  // none
  const std::size_t end = name.find_first_not_of("0123456789", number);
  if (end == number || end == std::string::npos || name[end] != '.') return name;
  return name.substr(0, number) + "*" + name.substr(end);
}

// Names that differ in the number of an expert are one.
class Names {
 public:
  explicit Names(const step::Program& program) {
    std::map<std::string, std::int32_t> first;
    for (const std::string& name : program.names) {
      const auto number = static_cast<std::int32_t>(first_.size());
      first_.push_back(first.try_emplace(without_expert(name), number).first->second);
    }
  }
  [[nodiscard]] std::int32_t of(std::int32_t name) const {
    return name < 0 ? name : first_[static_cast<std::size_t>(name)];
  }

 private:
  std::vector<std::int32_t> first_;
};

struct Group {
  facts::TensorGroup facts;
  Layers born, freed;
  std::int32_t name = -1;

  void add(const std::int32_t other) {
    if (std::exchange(name, other) == other) return;
    facts.operation = without_expert(facts.operation);
    facts.born.operation = without_expert(facts.born.operation);
    if (facts.freed) facts.freed->operation = without_expert(facts.freed->operation);
  }
};

// What lives alike: made by the same operation in the same type and shape, freed by the same one.
struct Span {
  step::PhaseKind phase = step::PhaseKind::setup;
  std::string layer;
  std::int32_t name = -1;

  Span(const Place& place, const Names& names) : name(names.of(place.name)) {
    if (place.phase != nullptr) phase = place.phase->kind;
    if (place.body != nullptr) layer = place.body->layer;
  }
  auto operator<=>(const Span&) const = default;
};

struct Key {
  std::int32_t name = -1;
  Bytes bytes;
  facts::VramCategory category = facts::VramCategory::temporaries;
  std::optional<facts::DType> dtype;
  std::array<std::int64_t, 4> sizes{};
  Span born;
  std::optional<Span> freed;

  auto operator<=>(const Key&) const = default;
};

std::vector<facts::TensorGroup> largest_first(std::map<Key, Group>& groups) {
  std::vector<facts::TensorGroup> rows;
  for (auto& [key, group] : groups) {
    facts::TensorGroup& row = group.facts;
    row.layer = group.born.text();
    if (!row.born.layer.empty()) row.born.layer = row.layer;
    if (row.freed && !row.freed->layer.empty()) row.freed->layer = group.freed.text();
    rows.push_back(std::move(row));
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return rows;
}

}  // namespace

std::vector<facts::TensorGroup> PeakTensors::groups() const {
  std::map<Key, Group> groups;
  const Names names(program_);
  for (const Tensor& tensor : tensors_) {
    const step::Slot& slot = program_.slots[static_cast<std::size_t>(tensor.slot)];
    Key key{names.of(slot.name),
            tensor.bytes,
            tensor.category,
            slot.dtype,
            slot.extent.sizes,
            Span(tensor.born, names),
            {}};
    if (tensor.freed) key.freed = Span(*tensor.freed, names);
    const auto [entry, fresh] = groups.try_emplace(std::move(key));
    Group& group = entry->second;
    facts::TensorGroup& row = group.facts;
    row.tensors = fresh ? 1 : row.tensors + 1;
    row.bytes += tensor.bytes;
    group.born.add(tensor.born);
    if (tensor.freed) group.freed.add(*tensor.freed);
    if (!fresh) {
      group.add(slot.name);
      continue;
    }
    group.name = slot.name;
    row.category = tensor.category;
    row.operation = program_.names[static_cast<std::size_t>(slot.name)];
    row.born = described(program_, tensor.born);
    if (tensor.freed) row.freed = described(program_, *tensor.freed);
    if (slot.dtype) {
      row.dtype = facts::name_of(*slot.dtype);
      row.shape.assign(slot.extent.sizes.begin(), slot.extent.sizes.begin() + slot.extent.rank);
    }
  }
  return largest_first(groups);
}

}  // namespace steelyard::vram
