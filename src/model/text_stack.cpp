#include "model/text_stack.h"

#include "model/llama_parts.h"

namespace steelyard::model {

TextStack read_text_stack(ConfigReader& text, const TextNames& names, const std::string& fallback) {
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

}  // namespace steelyard::model
