// A residual network in front of a detector: timm's names, norms whose values are fixed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/graph.h"

namespace steelyard::model {

struct FrozenResNet {
  std::string prefix;  // of all names: "model.backbone.conv_encoder.model."
  bool bottleneck = true;
  std::vector<std::int64_t> depths = {3, 4, 6, 3};
};

// Stem and stages over the graph's first shared tensor; what lies before layer2 does not train
// (modeling_detr.py, DetrConvEncoder). The shape of what they put out.
[[nodiscard]] Shape add_frozen_resnet(Graph& graph, const FrozenResNet& backbone);

}  // namespace steelyard::model
