#include "codec/onnx.h"

#include <fmt/format.h>

#include <bit>
#include <limits>
#include <set>
#include <system_error>
#include <utility>

#include "codec/onnx_tensor.h"
#include "codec/utf8.h"
#include "codec/wire.h"

namespace steelyard::codec {

namespace {

namespace fs = std::filesystem;
using facts::OnnxAttribute;
using facts::OnnxFunction;
using facts::OnnxGraph;
using facts::OnnxModel;
using facts::OnnxNode;
using facts::OnnxTensor;
using facts::OnnxValueInfo;

// One method per message of onnx.proto; the numbers are its field numbers.
class Reader {
 public:
  Reader(WireFile& file, const OnnxLimits& limits)
      : state_(file), limits_(limits), tensors_(state_, limits) {}

  OnnxModel model();
  [[nodiscard]] WireState& state() { return state_; }
  [[nodiscard]] const std::vector<ExternalData>& external() const { return tensors_.external(); }

 private:
  std::string text(const WireField& field) { return tensors_.text(field); }
  OnnxTensor tensor(const WireField& field);
  OnnxGraph graph(const WireField& message, std::int64_t depth);
  OnnxNode node(const WireField& message, std::int64_t depth);
  OnnxAttribute attribute(const WireField& message, std::int64_t depth);
  OnnxValueInfo value_info(const WireField& message);
  void type(const WireField& message, OnnxValueInfo& value, bool outermost = true);
  facts::OnnxDimension dimension(const WireField& message);
  void add_buffers(const WireField& message, OnnxGraph& graph);
  OnnxFunction function(const WireField& message);
  facts::OnnxOperatorSet operator_set(const WireField& message);
  void count(std::int64_t& counter, std::int64_t limit, const WireField& at, const char* what);

  WireState state_;
  const OnnxLimits& limits_;
  OnnxTensorReader tensors_;
  std::int64_t nodes_ = 0, names_ = 0, tensor_count_ = 0;
};

void Reader::count(std::int64_t& counter, std::int64_t limit, const WireField& at,
                   const char* what) {
  if (++counter > limit) {
    state_.refuse(at.begin, fmt::format("more than {} {}", limit, what));
  }
  if (state_.read > limits_.header) {
    state_.refuse(at.begin, fmt::format("more than {} bytes that are no weights", limits_.header));
  }
}

OnnxTensor Reader::tensor(const WireField& field) {
  count(tensor_count_, limits_.tensors, field, "tensors");
  return tensors_.tensor(field);
}

facts::OnnxDimension Reader::dimension(const WireField& message) {
  facts::OnnxDimension dim;
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    if (field->number == 1 && field->type == 0) dim.value = field->whole();
    if (field->number == 2 && field->type == 2) dim.symbol = text(*field);
  }
  if (dim.value && *dim.value < 0) {
    // Some exporters write -1 for a size that they do not know.
    if (*dim.value != -1) state_.refuse(message.begin, fmt::format("a size of {}", *dim.value));
    dim.value.reset();
  }
  return dim;
}

void Reader::type(const WireField& message, OnnxValueInfo& value, bool outermost) {
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    constexpr std::uint64_t kOptional = 9;  // optional_type, whose elem_type is field 1
    if (field->number == kOptional && field->type == 2 && outermost) {
      WireCursor inside(state_, *field);
      while (const auto own = inside.next()) {
        if (own->number == 1 && own->type == 2) type(*own, value, false);
      }
    }
    if (field->number != 1 || field->type != 2) continue;  // tensor_type
    value.is_tensor = true;
    WireCursor of_tensor(state_, *field);
    while (const auto part = of_tensor.next()) {
      if (part->number == 1 && part->type == 0) {
        value.element = static_cast<facts::OnnxElement>(part->value);
      }
      if (part->number != 2 || part->type != 2) continue;
      value.has_shape = true;
      WireCursor dims(state_, *part);
      while (const auto dim = dims.next()) {
        if (dim->number != 1 || dim->type != 2) continue;
        if (std::ssize(value.dims) >= limits_.dims) {
          state_.refuse(dim->begin, fmt::format("more than {} dimensions", limits_.dims));
          return;
        }
        value.dims.push_back(dimension(*dim));
      }
    }
  }
}

OnnxValueInfo Reader::value_info(const WireField& message) {
  count(names_, limits_.names, message, "names");
  OnnxValueInfo value;
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    if (field->type != 2) continue;
    if (field->number == 1) value.name = text(*field);
    if (field->number == 2) type(*field, value);
  }
  return value;
}

OnnxAttribute Reader::attribute(const WireField& message, std::int64_t depth) {
  count(names_, limits_.names, message, "names");
  OnnxAttribute result;
  const auto real = [](std::uint64_t bits) {
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  };
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    const std::uint32_t type = field->type;
    const auto room = [&](std::int64_t held) {
      if (held < limits_.wholes) return true;
      state_.refuse(field->begin, fmt::format("a list of more than {} numbers", limits_.wholes));
      return false;
    };
    switch (field->number) {
      case 1:
        if (type == 2) result.name = text(*field);
        break;
      case 2:
        if (type == 5) result.real = real(field->value);
        break;
      case 3:
        if (type == 0) result.whole = field->whole();
        break;
      case 4:
        if (type == 2) result.text = text(*field);
        break;
      case 5:
        if (type == 2) result.tensor = std::make_shared<const OnnxTensor>(tensor(*field));
        break;
      case 6:
        if (type == 2) result.graph = std::make_shared<const OnnxGraph>(graph(*field, depth + 1));
        break;
      case 7:
        if (type == 5 && room(std::ssize(result.reals))) result.reals.push_back(real(field->value));
        for (WireCursor list(state_, *field); type == 2 && !list.done();) {
          const std::uint64_t bits = list.fixed(4);
          if (state_.well() && room(std::ssize(result.reals))) result.reals.push_back(real(bits));
        }
        break;
      case 8:
        if (type == 0 && room(std::ssize(result.wholes))) result.wholes.push_back(field->whole());
        for (WireCursor list(state_, *field); type == 2 && !list.done();) {
          const auto whole = static_cast<std::int64_t>(list.varint());
          if (state_.well() && room(std::ssize(result.wholes))) result.wholes.push_back(whole);
        }
        break;
      case 21:
        if (type == 2) result.of_function = text(*field);
        break;
      default: break;
    }
  }
  return result;
}

OnnxNode Reader::node(const WireField& message, std::int64_t depth) {
  count(nodes_, limits_.nodes, message, "nodes");
  OnnxNode node;
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    if (field->type != 2) continue;
    switch (field->number) {
      case 1:
      case 2:
        count(names_, limits_.names, *field, "names");
        (field->number == 1 ? node.inputs : node.outputs).push_back(text(*field));
        break;
      case 3: node.name = text(*field); break;
      case 4: node.op_type = text(*field); break;
      case 5: node.attributes.push_back(attribute(*field, depth)); break;
      case 7: node.domain = text(*field); break;
      default: break;
    }
  }
  if (node.domain == "ai.onnx") node.domain.clear();
  return node;
}

OnnxGraph Reader::graph(const WireField& message, std::int64_t depth) {
  OnnxGraph graph;
  if (depth > limits_.depth) {
    state_.refuse(message.begin, fmt::format("graphs nested deeper than {}", limits_.depth));
    return graph;
  }
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    if (field->type != 2) continue;
    switch (field->number) {
      case 1: graph.nodes.push_back(node(*field, depth)); break;
      case 2: graph.name = text(*field); break;
      case 5: graph.initializers.push_back(tensor(*field)); break;
      case 11: graph.inputs.push_back(value_info(*field)); break;
      case 12: graph.outputs.push_back(value_info(*field)); break;
      case 15: graph.sparse = true; break;
      case 16: add_buffers(*field, graph); break;
      default: break;
    }
  }
  return graph;
}

// torch's dynamo exporter tells what its program takes in (torch.export's ExportGraphSignature, as
// text): "InputSpec(kind=<InputKind.BUFFER: 3>, arg=..., target='rotary.inv_freq', ...)".
void Reader::add_buffers(const WireField& message, OnnxGraph& graph) {
  std::string key, value;
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    if (field->type != 2) continue;
    if (field->number == 1) key = text(*field);
    if (field->number != 2 || key != "pkg.torch.export.ExportedProgram.graph_signature") continue;
    if (field->length() > limits_.signature) return;  // then nobody says
    if (!state_.file.read(field->begin, field->length(), value)) return;
    state_.read += field->length();
  }
  constexpr std::string_view kBuffer = "InputKind.BUFFER", kTarget = "target='";
  for (std::size_t at = value.find(kBuffer); at != std::string::npos;
       at = value.find(kBuffer, at + 1)) {
    const std::size_t target = value.find(kTarget, at);
    if (target == std::string::npos) return;
    const std::size_t begin = target + kTarget.size();
    const std::size_t end = value.find('\'', begin);
    if (end == std::string::npos) return;
    graph.buffers.insert(value.substr(begin, end - begin));
  }
}

OnnxFunction Reader::function(const WireField& message) {
  OnnxFunction result;
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    if (field->type != 2) continue;
    switch (field->number) {
      case 1: result.name = text(*field); break;
      case 4:
      case 5:
        count(names_, limits_.names, *field, "names");
        (field->number == 4 ? result.inputs : result.outputs).push_back(text(*field));
        break;
      case 7: result.nodes.push_back(node(*field, 0)); break;
      case 10: result.domain = text(*field); break;
      case 11: result.defaults.push_back(attribute(*field, 0)); break;
      default: break;
    }
  }
  return result;
}

facts::OnnxOperatorSet Reader::operator_set(const WireField& message) {
  facts::OnnxOperatorSet set;
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    if (field->number == 1 && field->type == 2) set.domain = text(*field);
    if (field->number == 2 && field->type == 0) set.version = field->whole();
  }
  if (set.domain == "ai.onnx") set.domain.clear();
  return set;
}

OnnxModel Reader::model() {
  OnnxModel model;
  WireCursor cursor(state_, 0, state_.file.size());
  bool has_graph = false;
  while (const auto field = cursor.next()) {
    const bool message = field->type == 2;
    if (field->number == 1 && field->type == 0) model.ir_version = field->whole();
    if (field->number == 2 && message) model.producer = text(*field);
    if (field->number == 8 && message) {
      count(names_, limits_.names, *field, "names");
      model.operator_sets.push_back(operator_set(*field));
    }
    if (field->number == 25 && message) {
      count(names_, limits_.names, *field, "names");
      model.functions.push_back(function(*field));
    }
    if (field->number != 7 || !message) continue;
    if (has_graph) state_.refuse(field->begin, "a second graph");
    has_graph = true;
    model.graph = graph(*field, 0);
  }
  if (state_.well() && !has_graph) state_.refuse(0, "no graph");
  return model;
}

Error bad(const fs::path& file, std::string found, std::string hint) {
  return {.code = ErrorCode::bad_input,
          .subject = "ONNX file",
          .found = std::move(found),
          .accepted = "a model as torch.onnx.export or onnx.save writes it",
          .hint = std::move(hint),
          .file = file.string()};
}

// Data in other files lies beside or below the model, and inside of its file.
Result<void> check_external(const fs::path& file, const std::vector<ExternalData>& external) {
  for (const ExternalData& data : external) {
    const fs::path location = fs::path(data.location).lexically_normal();
    const bool outside = location.is_absolute() || location.empty() || *location.begin() == "..";
    if (outside) {
      return fail(bad(file, fmt::format("data of {} at \"{}\"", data.tensor, data.location),
                      "external data must lie beside the model"));
    }
    std::error_code trouble;
    const std::uintmax_t size = fs::file_size(file.parent_path() / location, trouble);
    if (trouble) continue;  // weights need not be there for a plan
    if (data.offset > size || data.length > size - data.offset) {
      return fail(bad(file,
                      fmt::format("data of {} at byte {}, {} bytes long, in {} of {} bytes",
                                  data.tensor, data.offset, data.length, data.location, size),
                      "is the file of weights complete?"));
    }
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const OnnxModel>> read_onnx(const fs::path& file, const OnnxLimits& limits) {
  STEELYARD_TRY(bytes, WireFile::open(file));
  Reader reader(bytes, limits);
  OnnxModel model = reader.model();
  if (!reader.state().well()) {
    return fail(bad(file, fmt::format("{} at byte {}", reader.state().trouble, reader.state().at),
                    "is the file complete, and an ONNX model?"));
  }
  STEELYARD_CHECK(check_external(file, reader.external()));
  return std::make_shared<const OnnxModel>(std::move(model));
}

}  // namespace steelyard::codec
