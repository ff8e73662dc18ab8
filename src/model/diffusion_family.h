// Builders of the diffusion transformers that came after family.h's: one per class of diffusers.
#pragma once

#include "model/family.h"

namespace steelyard::model {

Graph build_dit(ConfigReader& config, const SampleShape& sample);
Graph build_hunyuan_video(ConfigReader& config, const SampleShape& sample);
Graph build_pixart(ConfigReader& config, const SampleShape& sample);
Graph build_sd3(ConfigReader& config, const SampleShape& sample);
Graph build_wan(ConfigReader& config, const SampleShape& sample);

}  // namespace steelyard::model
