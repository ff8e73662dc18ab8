// One node of an ONNX graph: its attributes, and what it says when it is refused.
#include <fmt/format.h>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using facts::OnnxAttribute;
using facts::OnnxNode;

std::string title(const OnnxNode& node) {
  return node.name.empty() ? node.op_type : fmt::format("{} ({})", node.name, node.op_type);
}

}  // namespace

const OnnxAttribute* OnnxCall::attribute(std::string_view name) const {
  for (const OnnxAttribute& attribute : node.attributes) {
    if (attribute.name == name) return &attribute;
  }
  return nullptr;
}

std::int64_t OnnxCall::whole(std::string_view name, std::int64_t fallback) const {
  const OnnxAttribute* found = attribute(name);
  return found != nullptr && found->whole ? *found->whole : fallback;
}

double OnnxCall::real(std::string_view name, double fallback) const {
  const OnnxAttribute* found = attribute(name);
  return found != nullptr && found->real ? *found->real : fallback;
}

std::string OnnxCall::text(std::string_view name, std::string_view fallback) const {
  const OnnxAttribute* found = attribute(name);
  return std::string(found != nullptr && found->text ? std::string_view(*found->text) : fallback);
}

std::vector<std::int64_t> OnnxCall::wholes(std::string_view name) const {
  const OnnxAttribute* found = attribute(name);
  return found != nullptr ? found->wholes : std::vector<std::int64_t>();
}

std::vector<std::int64_t> OnnxCall::known(std::size_t i, const char* what) const {
  if (has(i) && at(i).wholes) return *at(i).wholes;
  refuse(fmt::format("{} that depend on data", what), "sizes that the shapes of the inputs decide",
         "a graph whose shapes depend on its data has no one size to plan for");
  return {};
}

std::int64_t OnnxCall::axis(std::int64_t given, std::int64_t rank) const {
  if (given >= -rank && given < rank) return given < 0 ? given + rank : given;
  refuse(fmt::format("axis {}", given), fmt::format("an axis from {} to {}", -rank, rank - 1));
  return 0;
}

void OnnxCall::refuse(std::string found, std::string accepted, std::string hint) const {
  std::string shapes;
  for (const OnnxValue* value : in) {
    shapes += shapes.empty() ? "" : " and ";
    shapes += value == nullptr ? "nothing" : text_of(value->shape);
  }
  if (!shapes.empty()) found += fmt::format(", inputs {}", shapes);
  lowering.refuse({.code = ErrorCode::bad_input,
                   .subject = fmt::format("{}: node {}", lowering.name(), title(node)),
                   .found = std::move(found),
                   .accepted = std::move(accepted),
                   .hint = std::move(hint)});
}

bool OnnxCall::well() const {
  return lowering.well();
}

}  // namespace steelyard::model
