#include "step/by_layer.h"

#include <map>
#include <utility>
#include <vector>

#include "step/assembler.h"

namespace steelyard::step {

model::Graph by_layer(model::Graph graph, const ChangeBlock& change) {
  std::map<std::string, std::int64_t> layers;  // of each name so far
  std::vector<model::Segment> segments;
  std::int64_t tail = 0;
  for (std::size_t s = 0; s < graph.segments.size(); ++s) {
    const model::Segment& segment = graph.segments[s];
    const std::size_t before = segments.size();
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      model::Segment round{1, segment.blocks};
      for (model::Block& block : round.blocks) {
        const bool layer = is_layer(block);
        const std::string number = layer ? std::to_string(layers[block.name]++) : "";
        change(block, s, layer ? block.name + "." + number + "." : "");
      }
      if (segments.size() > before && segments.back().blocks == round.blocks) {
        ++segments.back().repeat;
      } else {
        segments.push_back(std::move(round));
      }
    }
    const bool behind = s + static_cast<std::size_t>(graph.tail) >= graph.segments.size();
    if (behind) tail += static_cast<std::int64_t>(segments.size() - before);
  }
  graph.segments = std::move(segments);
  graph.tail = tail;
  return graph;
}

}  // namespace steelyard::step
