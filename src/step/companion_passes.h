// Forward passes of frozen companions (text encoders, autoencoders), which run without gradients in
// front of each micro-batch: diffusers' training scripts encode pictures and text in the step
// (train_text_to_image.py: vae.encode, text_encoder; train_dreambooth_lora_flux.py).
#pragma once

#include <vector>

#include "facts/dtype.h"
#include "step/program.h"
#include "step/step.h"

namespace steelyard::step {

// Of companions that are always held and whose graphs say what they compute. Products come as the
// graph names them, each with the norm and activation in front of it: the tensors that one of them
// needs, and its time. `dtype`: what they are held and computed in, unless they say so.
// On the host's processors (held = "cpu") they are that time alone, which the GPU waits for, and
// the copy of what they put out.
void add_companion_passes(const std::vector<Companion>& companions, facts::DType dtype,
                          Program& program);

// What such a companion holds in host memory, in each rank: its weights, and the most that one of
// its products needs, with what the norm and the activation in front of it make.
struct HeldOnHost {
  Bytes weights, work;
};
[[nodiscard]] HeldOnHost held_on_host(const Companion& companion, facts::DType dtype);

}  // namespace steelyard::step
