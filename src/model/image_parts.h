// What the families that read pictures share: the start of their graph, the transformer layer of
// the vision transformers, the size of a picture.
#pragma once

#include <cstdint>
#include <string>

#include "model/block_builder.h"
#include "model/config_reader.h"
#include "model/family.h"

namespace steelyard::model {

constexpr Limits kSideLimits{1, 65'536};     // pixels
constexpr Limits kChannelLimits{1, 65'536};  // of a picture inside the network
constexpr Limits kLabelLimits{1, 16'777'216};

struct Picture {
  std::int64_t height = 0, width = 0, channels = 3;
};

// The job's size where it says one, else the configuration's.
[[nodiscard]] Picture picture_of(const SampleShape& sample, std::int64_t own_height,
                                 std::int64_t own_width, std::int64_t channels);

// Classes of the head as transformers reads them: num_labels, or as many as id2label has; 2.
[[nodiscard]] std::int64_t labels_of(ConfigReader& config);

// A graph that reads pictures [B,C,h,w] and a label each, still without blocks.
[[nodiscard]] Graph start_picture_graph(const ConfigReader& config, const SampleShape& sample,
                                        const Picture& picture);
constexpr TensorRef kPixels{true, 0};
constexpr TensorRef kClassLabels{true, 1};

// The last block after what `block` holds: a linear over [B,H] and the loss.
void finish_classifier(Graph& graph, BlockBuilder& block, TensorRef pooled, const std::string& name,
                       std::int64_t classes);

}  // namespace steelyard::model
