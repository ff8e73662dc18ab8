#include "model/text_stack.h"

#include "model/llama_parts.h"

namespace steelyard::model {

namespace {

// transformers 4 asks the text's configuration (get_text_config), 5 the model's own, which its
// files hold; where only one of the two says it, both mean that.
bool ties_embeddings(ConfigReader& config, const ConfigReader& text, bool own) {
  constexpr const char* kKey = "tie_word_embeddings";
  if (!config.has(kKey)) return own;
  const std::string version = config.text({"transformers_version"}, "4");
  const bool older = version.starts_with("4") || version.starts_with("3");
  return older && text.has(kKey) ? own : config.flag({kKey}, own);
}

TextStack stack_of(ConfigReader& text, const TextNames& names, const std::string& fallback) {
  const std::string type = text.choice(
      {"model_type"}, fallback,
      {"gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3", "vicuna"});
  if (type == "gemma") return read_gemma_stack(text, names, 1);
  if (type == "gemma2") return read_gemma_stack(text, names, 2);
  if (type == "gemma3_text") return read_gemma_stack(text, names, 3);
  if (type == "mistral") return text_stack_of(plan_mistral(text), names);
  if (type == "qwen2") return text_stack_of(plan_qwen2(text), names);
  if (type == "qwen3") return text_stack_of(plan_qwen3(text), names);
  return text_stack_of(plan_llama(text), names);
}

}  // namespace

TextStack read_text_stack(ConfigReader& config, const TextNames& names,
                          const std::string& fallback) {
  ConfigReader text = config.table("text_config");
  TextStack stack = stack_of(text, names, fallback);
  stack.sizes.tied = ties_embeddings(config, text, stack.sizes.tied);
  config.adopt(text);
  return stack;
}

}  // namespace steelyard::model
