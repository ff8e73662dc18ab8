#include "report/module_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "base/format.h"
#include "base/text_table.h"

namespace steelyard::report {
namespace {

struct Node {
  std::string name;
  Parameters parameters;
  std::string note;  // of a weight: its shape
  std::vector<std::unique_ptr<Node>> children;
};

Node& child_of(Node& parent, const std::string& name) {
  for (const auto& child : parent.children) {
    if (child->name == name) return *child;
  }
  parent.children.push_back(std::make_unique<Node>());
  parent.children.back()->name = name;
  return *parent.children.back();
}

std::vector<std::string> components(const std::string& dotted) {
  std::vector<std::string> parts;
  std::size_t start = 0;
  while (start <= dotted.size()) {
    const std::size_t dot = std::min(dotted.find('.', start), dotted.size());
    if (dot > start) parts.push_back(dotted.substr(start, dot - start));
    start = dot + 1;
  }
  return parts;
}

std::int64_t count_of(const std::vector<std::int64_t>& shape) {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) product = checked_multiply(product, extent);
  return product;
}

// Layers that repeat are one node, whose own figures are of one layer; above it all of them count.
void add_weight(Node& root, const std::vector<std::string>& above, const facts::ModelWeight& weight,
                std::int64_t layers) {
  const bool tied = !weight.tied_to.empty();
  const Parameters own(tied ? 0 : count_of(weight.shape));
  Node* node = &root;
  node->parameters += own * layers;
  for (std::size_t i = 0; i < above.size(); ++i) {
    node = &child_of(*node, above[i]);
    node->parameters += i + 1 == above.size() ? own : own * layers;
  }
  for (const std::string& part : components(weight.name)) {
    node = &child_of(*node, part);
    node->parameters += own;
  }
  node->note = fmt::format("[{}]", fmt::join(weight.shape, ", "));
  if (tied) node->note += " shares " + weight.tied_to;
}

void print(const Node& node, const std::string& stem, const Paint& paint, TextTable& table) {
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    const Node& child = *node.children[i];
    const bool last = i + 1 == node.children.size();
    const bool plain = paint.ascii();
    const std::string branch = plain ? (last ? "`- " : "|- ") : (last ? "└─ " : "├─ ");
    table.add({stem + branch + paint.outside(child.name), grouped(child.parameters.value()),
               paint.outside(child.note)});
    print(child, stem + (last ? "   " : (plain ? "|  " : "│  ")), paint, table);
  }
}

}  // namespace

std::string module_tree(const facts::ModelTable& model, const Paint& paint) {
  Node root;
  std::set<std::string> seen;
  for (const facts::ModelPartWeights& part : model.weights) {
    std::vector<std::string> above;
    if (part.name != "embed" && part.name != "middle" && part.name != "head") {
      above = components(part.name);
      if (above.empty()) above.push_back(part.name);
      std::string& last = above.back();
      if (part.layers > 1) last += fmt::format(" {} {}", paint.signs().times, part.layers);
      const std::string label = last;
      for (int n = 2; !seen.insert(fmt::format("{}", fmt::join(above, "."))).second; ++n) {
        last = fmt::format("{} ({})", label, n);
      }
    }
    for (const facts::ModelWeight& weight : part.weights) {
      add_weight(root, above, weight, above.empty() ? 1 : part.layers);
    }
  }
  TextTable table({{"module"}, {"parameters", Align::right}, {"weight"}});
  print(root, "", paint, table);
  return table.text(0, "-");
}

}  // namespace steelyard::report
