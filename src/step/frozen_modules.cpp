#include "step/frozen_modules.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/suggest.h"

namespace steelyard::step {

namespace {

// Where the module's name stands in the path, between dots or at its ends.
bool lies_in(std::string_view path, std::string_view module) {
  if (module.empty()) return false;
  for (std::size_t at = path.find(module); at != std::string_view::npos;
       at = path.find(module, at + 1)) {
    const std::size_t end = at + module.size();
    if ((at == 0 || path[at - 1] == '.') && (end == path.size() || path[end] == '.')) return true;
  }
  return false;
}

// Of a layer without its number: "wav2vec2.encoder.layers.attention.k_proj.weight".
std::string path_of(const model::Block& block, const model::Weight& weight) {
  const bool end = block.name == "embed" || block.name == "middle" || block.name == "head";
  return end ? weight.name : block.name + "." + weight.name;
}

bool freeze(model::Graph& graph, const std::string& module) {
  bool any = false;
  for (model::Segment& segment : graph.segments) {
    for (model::Block& block : segment.blocks) {
      for (model::Weight& weight : block.weights) {
        // A shared storage trains or does not, whichever of its names says so.
        const bool own = lies_in(path_of(block, weight), module);
        if (!own && !(!weight.tied_to.empty() && lies_in(weight.tied_to, module))) continue;
        weight.trains = false;
        any = true;
      }
    }
  }
  return any;
}

// The two outer parts of each path, each once.
std::vector<std::string> outer_modules(const model::Graph& graph) {
  std::vector<std::string> names;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        const std::string path = path_of(block, weight);
        const std::size_t first = path.find('.');
        const std::size_t second = first == std::string::npos ? first : path.find('.', first + 1);
        std::string name = path.substr(0, second);
        if (std::find(names.begin(), names.end(), name) == names.end()) {
          names.push_back(std::move(name));
        }
      }
    }
  }
  return names;
}

}  // namespace

Result<model::Graph> with_frozen_modules(const model::Graph& graph,
                                         const std::vector<std::string>& modules) {
  model::Graph frozen = graph;
  for (const std::string& module : modules) {
    if (freeze(frozen, module)) continue;
    const std::vector<std::string> known = outer_modules(graph);
    return fail({ErrorCode::unknown_name,
                 "train.frozen",
                 "\"" + module + "\"",
                 listed(known, known.size()),
                 "name a module of the model",
                 "",
                 {}});
  }
  return frozen;
}

}  // namespace steelyard::step
