// Builders of networks that read pictures and of autoencoders, beside those of family.h.
#pragma once

#include "model/family.h"

namespace steelyard::model {

Graph build_autoencoder_hunyuan(ConfigReader& config, const SampleShape& sample);
Graph build_autoencoder_wan(ConfigReader& config, const SampleShape& sample);
Graph build_efficientnet(ConfigReader& config, const SampleShape& sample);
Graph build_mobilenet_v1(ConfigReader& config, const SampleShape& sample);
Graph build_mobilenet_v2(ConfigReader& config, const SampleShape& sample);
Graph build_regnet(ConfigReader& config, const SampleShape& sample);

}  // namespace steelyard::model
