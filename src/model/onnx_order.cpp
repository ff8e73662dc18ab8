// The order of an ONNX graph's nodes. The standard asks for files in order; some tools do not care.
#include <fmt/format.h>

#include <deque>
#include <unordered_map>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using facts::OnnxNode;

std::string title(const OnnxNode& node) {
  return node.name.empty() ? node.op_type : fmt::format("{} ({})", node.name, node.op_type);
}

Error bad(const std::string& name, const OnnxNode& node, std::string found, std::string accepted) {
  return {.code = ErrorCode::bad_input,
          .subject = fmt::format("{}: node {}", name, title(node)),
          .found = std::move(found),
          .accepted = std::move(accepted),
          .hint = "onnx.checker.check_model names such faults too"};
}

}  // namespace

Result<std::vector<OnnxNode>> ordered_nodes(const std::vector<OnnxNode>& nodes,
                                            const std::string& name) {
  std::unordered_map<std::string_view, std::size_t> maker;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string& output : nodes[i].outputs) {
      if (output.empty()) continue;
      if (!maker.emplace(output, i).second) {
        return fail(bad(name, nodes[i],
                        fmt::format("output \"{}\", which another node makes", output),
                        "a name of its own for every value"));
      }
    }
  }
  std::vector<std::size_t> waits(nodes.size(), 0);
  std::vector<std::vector<std::size_t>> readers(nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string& input : nodes[i].inputs) {
      const auto made = maker.find(input);
      if (input.empty() || made == maker.end()) continue;
      readers[made->second].push_back(i);
      ++waits[i];
    }
  }
  std::deque<std::size_t> ready;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (waits[i] == 0) ready.push_back(i);
  }
  std::vector<std::size_t> order;
  while (!ready.empty()) {
    const std::size_t next = ready.front();
    ready.pop_front();
    order.push_back(next);
    for (const std::size_t reader : readers[next]) {
      if (--waits[reader] == 0) ready.push_back(reader);
    }
  }
  if (order.size() < nodes.size()) {
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (waits[i] == 0) continue;
      return fail(bad(name, nodes[i], "a circle: it reads what is made of its own output",
                      "a graph without cycles"));
    }
  }
  bool sorted = true;  // the file's own order is the code's order: keep it where it is one
  std::vector<bool> seen(nodes.size(), false);
  for (std::size_t i = 0; i < nodes.size() && sorted; ++i) {
    for (const std::string& input : nodes[i].inputs) {
      const auto made = maker.find(input);
      if (!input.empty() && made != maker.end() && !seen[made->second]) sorted = false;
    }
    seen[i] = true;
  }
  if (sorted) return nodes;
  std::vector<OnnxNode> result;
  for (const std::size_t i : order) result.push_back(nodes[i]);
  return result;
}

}  // namespace steelyard::model
