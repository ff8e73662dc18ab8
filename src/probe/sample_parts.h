// Random parts of pictures (torchvision's RandomResizedCrop), so chosen that few stand for all.
#pragma once

#include <cstdint>
#include <vector>

namespace steelyard::probe {

// Seeds for rehearse::SampleMaker, for pictures of about that size (pixels, at least 1): the random
// parts that they give are spread evenly over cheap and dear ones, and so are the first 8, 16, ...
// of them: what is measured of few does not depend on luck. Always the same ones.
[[nodiscard]] std::vector<std::uint64_t> representative_seeds(int width, int height);

}  // namespace steelyard::probe
