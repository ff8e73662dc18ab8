// Builders of networks of transformers that read pictures, besides family.h's.
#pragma once

#include "model/family.h"

namespace steelyard::model {

Graph build_beit(ConfigReader& config, const SampleShape& sample);
Graph build_convnext(ConfigReader& config, const SampleShape& sample);
Graph build_convnextv2(ConfigReader& config, const SampleShape& sample);
Graph build_detr(ConfigReader& config, const SampleShape& sample);
Graph build_dinov2(ConfigReader& config, const SampleShape& sample);
Graph build_dinov2_with_registers(ConfigReader& config, const SampleShape& sample);
Graph build_gemma3(ConfigReader& config, const SampleShape& sample);
Graph build_idefics3(ConfigReader& config, const SampleShape& sample);
Graph build_internvl(ConfigReader& config, const SampleShape& sample);
Graph build_mllama(ConfigReader& config, const SampleShape& sample);
Graph build_segformer(ConfigReader& config, const SampleShape& sample);
Graph build_swin(ConfigReader& config, const SampleShape& sample);
Graph build_swinv2(ConfigReader& config, const SampleShape& sample);

}  // namespace steelyard::model
