// Builders of decoders that are variations of LLaMA's layer or of DeepSeek's; those before them
// stand in family.h.
#pragma once

#include "model/config_reader.h"
#include "model/graph.h"
#include "model/model.h"

namespace steelyard::model {

Graph build_apertus(ConfigReader& config, const SampleShape& sample);
Graph build_arcee(ConfigReader& config, const SampleShape& sample);
Graph build_bamba(ConfigReader& config, const SampleShape& sample);
Graph build_dots1(ConfigReader& config, const SampleShape& sample);
Graph build_ernie4_5(ConfigReader& config, const SampleShape& sample);
Graph build_ernie4_5_moe(ConfigReader& config, const SampleShape& sample);
Graph build_exaone4(ConfigReader& config, const SampleShape& sample);
Graph build_glm(ConfigReader& config, const SampleShape& sample);
Graph build_glm4(ConfigReader& config, const SampleShape& sample);
Graph build_granitemoehybrid(ConfigReader& config, const SampleShape& sample);
Graph build_hunyuan_dense(ConfigReader& config, const SampleShape& sample);
Graph build_hunyuan_moe(ConfigReader& config, const SampleShape& sample);
Graph build_internlm2(ConfigReader& config, const SampleShape& sample);
Graph build_internlm3(ConfigReader& config, const SampleShape& sample);
Graph build_lfm2(ConfigReader& config, const SampleShape& sample);
Graph build_mimo(ConfigReader& config, const SampleShape& sample);
Graph build_ministral(ConfigReader& config, const SampleShape& sample);
Graph build_nemotron(ConfigReader& config, const SampleShape& sample);
Graph build_olmo(ConfigReader& config, const SampleShape& sample);
Graph build_olmo3(ConfigReader& config, const SampleShape& sample);
Graph build_qwen3_5(ConfigReader& config, const SampleShape& sample);
Graph build_qwen3_5_text(ConfigReader& config, const SampleShape& sample);
Graph build_qwen3_next(ConfigReader& config, const SampleShape& sample);
Graph build_qwen3_vl(ConfigReader& config, const SampleShape& sample);
Graph build_seed_oss(ConfigReader& config, const SampleShape& sample);
Graph build_smollm3(ConfigReader& config, const SampleShape& sample);

}  // namespace steelyard::model
