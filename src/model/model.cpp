#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "base/suggest.h"
#include "model/class_head.h"
#include "model/decoder_families.h"
#include "model/diffusion_family.h"
#include "model/family.h"
#include "model/llama4.h"
#include "model/onnx.h"
#include "model/picture_families.h"
#include "model/recommender_parts.h"
#include "model/stored_weights.h"
#include "model/vision_family.h"

namespace steelyard::model {

namespace {

struct Family {
  std::string_view model_type;
  Graph (*build)(ConfigReader&, const SampleShape&);
  bool reads_class = false;  // builds the end that "architectures" names itself
};

// Sorted by name.
constexpr std::array kFamilies = {
    Family{"AutoencoderKL", build_autoencoder_kl},
    Family{"AutoencoderKLCogVideoX", build_autoencoder_cogvideox},
    Family{"AutoencoderKLHunyuanVideo", build_autoencoder_hunyuan},
    Family{"AutoencoderKLLTXVideo", build_autoencoder_ltx},
    Family{"AutoencoderKLWan", build_autoencoder_wan},
    Family{"CLIPTextModel", build_clip_text, true},
    Family{"CLIPTextModelWithProjection", build_clip_text, true},
    Family{"CogVideoXTransformer3DModel", build_cogvideox},
    Family{"DiTTransformer2DModel", build_dit},
    Family{"FluxTransformer2DModel", build_flux},
    Family{"HunyuanVideoTransformer3DModel", build_hunyuan_video},
    Family{"LTXVideoTransformer3DModel", build_ltx_video},
    Family{"PixArtTransformer2DModel", build_pixart},
    Family{"SD3Transformer2DModel", build_sd3},
    Family{"T5EncoderModel", build_t5_encoder, true},
    Family{"UNet2DConditionModel", build_unet},
    Family{"WanTransformer3DModel", build_wan},
    Family{"apertus", build_apertus},
    Family{"arcee", build_arcee},
    Family{"bamba", build_bamba},
    Family{"bart", build_bart},
    Family{"beit", build_beit},
    Family{"bert", build_bert, true},
    Family{"blenderbot", build_blenderbot},
    Family{"bloom", build_bloom},
    Family{"camembert", build_xlm_roberta, true},
    Family{"clip", build_clip, true},
    Family{"clip_vision_model", build_clip, true},
    Family{"cohere", build_cohere},
    Family{"cohere2", build_cohere2},
    Family{"convnext", build_convnext},
    Family{"convnextv2", build_convnextv2},
    Family{"dbrx", build_dbrx},
    Family{"dcn", build_dcn},
    Family{"deberta-v2", build_deberta_v2, true},
    Family{"deepseek_v2", build_deepseek_v2},
    Family{"deepseek_v3", build_deepseek_v3},
    Family{"deit", build_deit},
    Family{"detr", build_detr},
    Family{"dinov2", build_dinov2},
    Family{"dinov2_with_registers", build_dinov2_with_registers},
    Family{"distilbert", build_distilbert, true},
    Family{"dlrm", build_dlrm},
    Family{"dots1", build_dots1},
    Family{"efficientnet", build_efficientnet},
    Family{"electra", build_electra, true},
    Family{"ernie4_5", build_ernie4_5},
    Family{"ernie4_5_moe", build_ernie4_5_moe},
    Family{"exaone4", build_exaone4},
    Family{"falcon", build_falcon},
    Family{"falcon_h1", build_falcon_h1},
    Family{"gemma", build_gemma},
    Family{"gemma2", build_gemma2},
    Family{"gemma3", build_gemma3},
    Family{"gemma3_text", build_gemma3_text},
    Family{"glm", build_glm},
    Family{"glm4", build_glm4},
    Family{"glm4_moe", build_glm4_moe},
    Family{"gpt2", build_gpt2},
    Family{"gpt_bigcode", build_gpt_bigcode},
    Family{"gpt_neox", build_gpt_neox},
    Family{"gpt_oss", build_gpt_oss},
    Family{"gptj", build_gptj},
    Family{"granite", build_granite},
    Family{"granitemoe", build_granitemoe},
    Family{"granitemoehybrid", build_granitemoehybrid},
    Family{"hubert", build_hubert, true},
    Family{"hunyuan_v1_dense", build_hunyuan_dense},
    Family{"hunyuan_v1_moe", build_hunyuan_moe},
    Family{"idefics3", build_idefics3},
    Family{"internlm2", build_internlm2},
    Family{"internlm3", build_internlm3},
    Family{"internvl", build_internvl},
    Family{"jamba", build_jamba},
    Family{"kimi_k2", build_deepseek_v3},
    Family{"layers", build_layered},
    Family{"lfm2", build_lfm2},
    Family{"llama", build_llama},
    Family{"llama4", build_llama4},
    Family{"llama4_text", build_llama4_text},
    Family{"llava", build_llava},
    Family{"mamba", build_mamba},
    Family{"mamba2", build_mamba2},
    Family{"marian", build_marian},
    Family{"mbart", build_mbart},
    Family{"megatron_gpt", build_megatron_gpt},
    Family{"megatron_t5", build_megatron_t5},
    Family{"mimo", build_mimo},
    Family{"ministral", build_ministral},
    Family{"mistral", build_mistral},
    Family{"mixtral", build_mixtral},
    Family{"mllama", build_mllama},
    Family{"mobilenet_v1", build_mobilenet_v1},
    Family{"mobilenet_v2", build_mobilenet_v2},
    Family{"modernbert", build_modernbert, true},
    Family{"mpt", build_mpt},
    Family{"mt5", build_mt5},
    Family{"nemotron", build_nemotron},
    Family{"nemotron_h", build_nemotron_h},
    Family{"olmo", build_olmo},
    Family{"olmo2", build_olmo2},
    Family{"olmo3", build_olmo3},
    Family{"olmoe", build_olmoe},
    Family{"opt", build_opt},
    Family{"paligemma", build_paligemma},
    Family{"pegasus", build_pegasus},
    Family{"phi", build_phi},
    Family{"phi3", build_phi3},
    Family{"qwen2", build_qwen2},
    Family{"qwen2_5_vl", build_qwen2_5_vl},
    Family{"qwen2_moe", build_qwen2_moe},
    Family{"qwen2_vl", build_qwen2_vl},
    Family{"qwen3", build_qwen3},
    Family{"qwen3_5", build_qwen3_5},
    Family{"qwen3_5_text", build_qwen3_5_text},
    Family{"qwen3_moe", build_qwen3_moe},
    Family{"qwen3_next", build_qwen3_next},
    Family{"qwen3_vl", build_qwen3_vl},
    Family{"regnet", build_regnet},
    Family{"resnet", build_resnet},
    Family{"roberta", build_roberta, true},
    Family{"seed_oss", build_seed_oss},
    Family{"segformer", build_segformer, true},
    Family{"siglip", build_siglip, true},
    Family{"siglip_vision_model", build_siglip, true},
    Family{"smollm3", build_smollm3},
    Family{"smolvlm", build_idefics3},
    Family{"stablelm", build_stablelm},
    Family{"starcoder2", build_starcoder2},
    Family{"swin", build_swin},
    Family{"swinv2", build_swinv2},
    Family{"t5", build_t5},
    Family{"timm_resnet", build_torchvision_resnet},
    Family{"timm_vision_transformer", build_timm_vision_transformer},
    Family{"torchvision_resnet", build_torchvision_resnet},
    Family{"transfo-xl", build_transfo_xl},
    Family{"vit", build_vit},
    Family{"wav2vec2", build_wav2vec2, true},
    Family{"whisper", build_whisper},
    Family{"wide_deep", build_wide_deep},
    Family{"xlm-roberta", build_xlm_roberta, true},
};

constexpr SampleShape kLargestSample{1'000'000, 1'073'741'824};
constexpr std::int64_t kLargestSide = 65'536;  // pixels

Error wrong(ErrorCode code, std::string subject, std::string found, std::string accepted,
            std::string hint) {
  return {code, std::move(subject), std::move(found), std::move(accepted), std::move(hint), {}, {}};
}

std::size_t common_prefix(std::string_view a, std::string_view b) {
  return static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

// What is known: the few names that begin as the given one does, and where all of them stand.
std::string accepted_types(std::string_view given = {}) {
  constexpr std::size_t kFewest = 3, kShown = 6;
  std::vector<std::string> near = known_model_types();
  const std::size_t all = near.size();
  std::erase_if(near,
                [&](const std::string& name) { return common_prefix(name, given) < kFewest; });
  // Of several that begin alike the later ones, which mostly are the newer.
  std::ranges::sort(near, std::greater(), [&](const std::string& name) {
    return std::pair(common_prefix(name, given), name);
  });
  near.resize(std::min(near.size(), kShown));
  const std::string rest = fmt::format("the {} listed in docs/model/graph.md, Configurations", all);
  return near.empty() ? "one of " + rest : listed(near, kShown) + "; all: " + rest;
}

// Types that are not read though the same model has another one that is.
struct Elsewhere {
  std::string_view model_type, hint;
};
constexpr std::array kElsewhere = {
    Elsewhere{"chatglm",
              "GLM-4's weights in transformers' own form have model_type glm, which is read "
              "(zai-org/glm-4-9b-hf, zai-org/glm-4-9b-chat-hf)"},
    Elsewhere{"gpt_j", "transformers calls it gptj, which is read"},
};

std::string hint_for(std::string_view given) {
  for (const Elsewhere& other : kElsewhere) {
    if (other.model_type == given) return std::string(other.hint);
  }
  const auto nearest = nearest_name(given, known_model_types());
  return nearest ? "did you mean \"" + *nearest + "\"?" : "";
}

Error without_model_type(const facts::ModelSource& source) {
  std::string hint = "add \"model_type\", as Hugging Face's config.json has it";
  if (const facts::Value* value = source.config.find("architectures")) {
    const facts::Array* names = value->as_array();
    const std::string* first =
        names != nullptr && !names->empty() ? names->front().as_text() : nullptr;
    hint = fmt::format("\"architectures\" ({}) alone does not say it; {}",
                       first != nullptr ? *first : "unreadable", hint);
  }
  return wrong(ErrorCode::bad_input, source.name + ": model_type", "nothing", accepted_types(),
               std::move(hint));
}

// An encoder taken out of a larger model bears that one's model_type; its class alone says so.
const Family* family_of_class(const facts::ModelSource& source) {
  const facts::Value* names = source.config.find("architectures");
  const facts::Array* list = names != nullptr ? names->as_array() : nullptr;
  if (list == nullptr || list->empty() || list->front().as_text() == nullptr) return nullptr;
  for (const Family& family : kFamilies) {
    if (family.model_type == *list->front().as_text()) return &family;
  }
  return nullptr;
}

// Files older than diffusers 0.28 name one class for several networks; diffusers tells them apart
// by their norm (models/model_loading_utils.py, _CLASS_REMAPPING_DICT).
std::string_view renamed_class(const facts::ModelSource& source, std::string_view name) {
  if (name != "Transformer2DModel") return name;
  const facts::Value* norm = source.config.find("norm_type");
  const std::string* kind = norm != nullptr ? norm->as_text() : nullptr;
  if (kind != nullptr && *kind == "ada_norm_zero") return "DiTTransformer2DModel";
  if (kind != nullptr && *kind == "ada_norm_single") return "PixArtTransformer2DModel";
  return name;
}

Result<const Family*> family_of(const facts::ModelSource& source) {
  if (source.config.as_object() == nullptr) {
    return fail(wrong(ErrorCode::bad_input, source.name, source.config.kind_name(),
                      "a table of keys as in Hugging Face's config.json", ""));
  }
  if (const Family* encoder = family_of_class(source)) return encoder;
  const facts::Value* value = source.config.find("model_type");
  // diffusers' config.json names its class instead.
  if (value == nullptr || value->is_null()) value = source.config.find("_class_name");
  if (value == nullptr || value->is_null()) return fail(without_model_type(source));
  const std::string* name = value->as_text();
  if (name == nullptr) {
    return fail(wrong(ErrorCode::bad_input, source.name + ": model_type", value->kind_name(),
                      accepted_types(), ""));
  }
  const std::string_view class_name = renamed_class(source, *name);
  for (const Family& family : kFamilies) {
    if (family.model_type == class_name) return &family;
  }
  return fail(wrong(ErrorCode::unknown_name, source.name + ": model_type", "\"" + *name + "\"",
                    accepted_types(*name), hint_for(*name)));
}

Result<void> check_sample(const SampleShape& sample) {
  if (sample.batch < 1 || sample.batch > kLargestSample.batch) {
    return fail(wrong(ErrorCode::bad_input, "micro-batch", fmt::format("{}", sample.batch),
                      fmt::format("a whole number from 1 to {}", kLargestSample.batch), ""));
  }
  if (sample.sequence < 0 || sample.sequence > kLargestSample.sequence) {
    return fail(wrong(ErrorCode::bad_input, "sequence length", fmt::format("{}", sample.sequence),
                      fmt::format("a whole number from 1 to {}", kLargestSample.sequence), ""));
  }
  constexpr std::int64_t kMostFrames = 1'000'000;
  if (sample.frames < 0 || sample.frames > kMostFrames) {
    return fail(wrong(ErrorCode::bad_input, "train.frames", fmt::format("{}", sample.frames),
                      fmt::format("a whole number from 1 to {}", kMostFrames), ""));
  }
  for (const std::int64_t side : {sample.height, sample.width}) {
    if (side >= 0 && side <= kLargestSide) continue;
    return fail(wrong(ErrorCode::bad_input, "image size", fmt::format("{}", side),
                      fmt::format("a whole number from 1 to {}", kLargestSide), ""));
  }
  return {};
}

// Each size may be legal and their product absurd; found here, once, so that nobody after this
// counts beyond 64 bits.
Result<void> check_countable(const Graph& graph) {
  try {
    (void)parameter_count(graph);
    for (const TensorInfo& tensor : graph.shared) (void)elements(tensor.shape);
    for (const Segment& segment : graph.segments) {
      for (const Block& block : segment.blocks) {
        for (const TensorInfo& tensor : block.tensors) (void)elements(tensor.shape);
      }
    }
  } catch (const QuantityOverflow&) {
    return fail(wrong(ErrorCode::bad_input, graph.name, "sizes whose product leaves 64 bits",
                      "sizes of a model that could exist", ""));
  }
  return {};
}

}  // namespace

std::vector<std::string> known_model_types() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.model_type);
  return names;
}

Result<Graph> build(const facts::ModelSource& source, SampleShape shape) {
  STEELYARD_CHECK(check_sample(shape));
  if (source.onnx != nullptr) {
    STEELYARD_TRY(read, build_onnx(*source.onnx, source.name, shape));
    STEELYARD_CHECK(check_countable(read));
    return std::move(read);
  }
  STEELYARD_TRY(family, family_of(source));
  STEELYARD_CHECK(check_recommender_keys(source.config, source.name));
  ConfigReader config(source.config, source.name);
  Graph graph = family->build(config, shape);
  if (config.first_error()) return fail(*config.first_error());
  if (!family->reads_class) {
    STEELYARD_TRY(ended, with_class_head(std::move(graph), config));
    graph = std::move(ended);
  }
  graph.model_type = family->model_type;
  STEELYARD_CHECK(check_countable(graph));
  if (source.stored != nullptr) STEELYARD_CHECK(check_stored(graph, *source.stored));
  return graph;
}

}  // namespace steelyard::model
