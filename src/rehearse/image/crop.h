// What part of an image becomes a sample: torchvision's RandomResizedCrop.
#pragma once

#include "rehearse/image/random.h"

namespace steelyard::rehearse {

// In pixels, inside of the image.
struct Box {
  int left = 0, top = 0, width = 0, height = 0;
};

// A part of 8 to 100 % of the area with sides 3:4 to 4:3, ten tries, else the largest part from the
// middle that has such sides (torchvision, transforms.RandomResizedCrop.get_params).
// width, height >= 1.
[[nodiscard]] Box random_resized_crop(int width, int height, Random& random);

// By how much a decoder may shrink the image (1, 2, 4 or 8) so that the part still has at least
// `side` pixels each way: resizing then never enlarges what shrinking threw away.
[[nodiscard]] int legal_shrink(const Box& box, int side);

}  // namespace steelyard::rehearse
