// The training method laid over a model's graph: which weights train, which are held quantized,
// and the low-rank adapters beside the linears that `train.lora.targets` names.
//
// Sources: peft/tuners/lora/layer.py (A [rank,in], B [out,rank], no bias), tuners_utils.py (a
// target is a module's name or its ending; "all-linear" leaves out the output head), utils/other.py
// (ModulesToSaveWrapper keeps the original beside the trained copy), litgpt/lora.py (LoRAQKVLinear:
// one A of all enabled parts of a fused projection, padded with zeros), bitsandbytes and
// transformers' quantizers (embeddings, head, norms and biases stay).
#pragma once

#include <string_view>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "model/graph.h"

namespace steelyard::step {

// How a framework's adapters behave: words `lora_*` of the profile's [operators].
struct AdapterHabits {
  bool promotes = false;           // adapters are held in fp32 whatever the base is (PEFT >= 0.11)
  bool autocast = false;           // adapters are trained under autocast, also over a short base
  bool nested_statistics = false;  // 4-bit statistics are themselves quantized
  bool casts_norms_only = false;   // `unquantized` fp32 stays with norms; sharded: not even there
  bool reentrant = false;          // recomputed layers are CheckpointFunction's
  bool inputs_require_grad = false;  // embeddings' output is made to, when layers are recomputed
  bool adapts_fused_parts = false;   // q_proj of a fused projection is adapted alone
  bool quantizes_head = false;
  bool keeps_quantized_input = false;  // nodes of products with quantized matrices do
  bool quantizes_from_half = false;    // 4-bit matrices were fp16, whatever multiplies them
  bool tensor_subclass = false;        // torchao's NF4Tensor holds 4-bit matrices, not bitsandbytes
  bool quantizes_whole = false;        // ... and a matrix is compared with all 16 values at once
  bool unpacks_by_operators = false;   // GPTQ's integers: PyTorch's operators, no kernel of its own
  bool mixes_units = false;  // FSDP1 wraps adapters and frozen weights into one flat parameter
  bool fuses_quantized_only = false;  // the `lora` kernel is for a quantized base
  bool dispatched_experts = false;    // experts are multiplied as one, no modules of their own
  // Parameters of a short type are trained under autocast all the same: word LIBRARY_arithmetic, of
  // the library whose code builds the model.
  bool short_autocast = false;
};

// Errors: a word that nobody knows.
[[nodiscard]] Result<AdapterHabits> adapter_habits_of(const facts::FrameworkProfile& profile,
                                                      std::string_view library = {});

// PEFT's rule of target names: the whole name of a module or its end behind a dot; with a `*` a
// pattern of whole parts of it.
[[nodiscard]] bool names_module(std::string_view target, std::string_view module);

// A part of the target before its last is a number or `*`: it may name modules by their layer, as
// "layers.3.self_attn.q_proj" and "language_model.layers.*.mlp.up_proj" do.
[[nodiscard]] bool tells_layers_apart(std::string_view target);
// The same rule of a module in a layer, whose names begin with `prefix` ("model.layers.3.").
[[nodiscard]] bool names_module_of_layer(std::string_view target, std::string_view prefix,
                                         std::string_view module);

// The graph as the method trains it; the model's own for `full`.
// Errors: targets or trainable modules that the model does not have, naming those that it has.
[[nodiscard]] Result<model::Graph> with_method(const model::Graph& graph, const facts::Job& job,
                                               const AdapterHabits& habits);

// The same with its adapters switched off: nothing reads their weights any more.
[[nodiscard]] model::Graph without_adapters(model::Graph graph);

// FSDP1 tells a unit without a gradient of its own by a hook on its inputs
// (_register_post_backward_reshard_only_hook). The hook's closure refers to the input it hangs on,
// and with reentrant checkpointing that input is a detached leaf with a gradient: both live until
// the hooks are taken off behind the backward pass.
[[nodiscard]] bool keeps_boundaries(const facts::Job& job, const AdapterHabits& habits,
                                    const model::Block& block);

// The embeddings' output is a leaf that requires a gradient though nothing before it trains.
[[nodiscard]] bool inputs_require_grad(const facts::Job& job, const AdapterHabits& habits);

}  // namespace steelyard::step
