#include "plan/ranks.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "facts/host.h"
#include "model/latent_source.h"
#include "model/model.h"
#include "plan/graphs.h"
#include "plan/objective.h"
#include "plan/resolve.h"
#include "plan/roles.h"
#include "plan/sample_lengths.h"
#include "step/alignment.h"

namespace steelyard::plan {

namespace {

// What the denoiser reads of its text, made by encoders of as many tokens; 0: it says nothing.
std::int64_t text_tokens(const model::Graph& graph) {
  for (const model::TensorInfo& tensor : graph.batch_tensors) {
    if (tensor.name == "encoder_hidden_states" && tensor.shape.size() > 1) return tensor.shape[1];
  }
  return 0;
}

// Of a companion whose forward pass is no part of a step its weights count alone.
void forget_operators(model::Graph& graph) {
  for (model::Segment& segment : graph.segments) {
    for (model::Block& block : segment.blocks) block.operators.clear();
  }
}

// A language model as a text encoder (LlamaModel, Gemma2Model) is asked for states, not for words:
// its output projection does not run, and a class without a task ("...Model") has none.
void forget_head(model::Graph& graph, const facts::Value& config) {
  const facts::Value* classes = config.find("architectures");
  const facts::Array* names = classes != nullptr ? classes->as_array() : nullptr;
  const std::string* name =
      names != nullptr && !names->empty() ? names->front().as_text() : nullptr;
  const bool bare = name != nullptr && name->ends_with("Model");
  model::Block& head = graph.segments.back().blocks.back();
  const auto ends = [](const model::Operator& op) { return model::is_loss(op.kind); };
  if (std::none_of(head.operators.begin(), head.operators.end(), ends)) return;
  std::erase_if(head.operators, [&](const model::Operator& op) {
    if (op.kind != model::OperatorKind::linear) return model::is_loss(op.kind);
    for (const std::int32_t index : op.weights) {
      if (index < 0 || !bare) continue;
      model::Weight& weight = head.weights.at(static_cast<std::size_t>(index));
      if (weight.tied_to.empty()) weight.tied_to = weight.name;  // counted nowhere
    }
    return true;
  });
}

// Without an accelerator all models compute on the host's processors.
facts::CompanionHeld held_on(const facts::Machine& machine, facts::CompanionHeld held) {
  const bool alike = facts::computes_on_host(machine.gpu) && held == facts::CompanionHeld::cpu;
  return alike ? facts::CompanionHeld::always : held;
}

// Elements that the denoiser reads of a companion: latents, or a state of each token. Vectors of a
// whole text (pooled) are too few to count.
std::int64_t put_out(const model::Graph& companion, const model::Graph& denoiser) {
  if (!model::is_autoencoder(companion.model_type)) {
    return checked_multiply(checked_multiply(denoiser.batch, text_tokens(denoiser)),
                            companion.hidden);
  }
  for (const model::TensorInfo& tensor : denoiser.batch_tensors) {
    if (tensor.name == "latents") return model::elements(tensor.shape);
  }
  return 0;
}

// A data set that holds latents or tokens brings what companions made before.
bool brings_raw_samples(const facts::Job& job) {
  using facts::DataKind;
  const DataKind kind = job.data.kind.value_or(DataKind::synthetic);
  return kind == DataKind::jpeg || kind == DataKind::png || kind == DataKind::video;
}

// The job names them, the request holds their configurations in the same order. They read the
// pictures and the text that the denoiser's latents and states are made of.
Result<std::vector<step::Companion>> companions_of(const Request& request, const facts::Job& job,
                                                   const model::SampleShape& sample,
                                                   const model::Graph& graph) {
  std::vector<step::Companion> companions;
  const std::vector<facts::Companion>& named = request.job.model.companions;
  const bool makes_inputs = model::reads_latents(graph) && brings_raw_samples(job);
  for (std::size_t i = 0; i < named.size() && i < request.companions.size(); ++i) {
    model::SampleShape shape = sample;
    shape.sequence = makes_inputs ? text_tokens(graph) : 0;  // 0: their own
    if (makes_inputs) {
      shape.height = graph.image_height;
      shape.width = graph.image_width;
      shape.frames = graph.frames;
    }
    STEELYARD_TRY(built, model::build(request.companions[i], shape));
    forget_head(built, request.companions[i].config);
    if (!makes_inputs) forget_operators(built);
    step::Companion companion{.graph = std::move(built),
                              .held = held_on(request.machine, named[i].held),
                              .trainable = named[i].trainable,
                              .precision = named[i].precision};
    if (makes_inputs) companion.puts_out = put_out(companion.graph, graph);
    companions.push_back(std::move(companion));
  }
  return companions;
}

}  // namespace

Result<Ranks> ranks_of(const Request& request) {
  Ranks ranks;
  STEELYARD_TRY(job, resolve(request.job, request.model, request.machine,
                             request.constants.framework, request.workshop.get()));
  ranks.job = std::move(job);
  model::SampleShape own = sample_shape(ranks.job, *ranks.job.train.micro_batch);
  own.sequence /= ranks.job.parallel.context;  // of one rank of a context group
  STEELYARD_TRY(shared, shared_graph(request.model, ranks.job, own, request.workshop.get()));
  const model::Graph& local = *shared;
  STEELYARD_TRY(companions, companions_of(request, ranks.job, own, local));
  const facts::FrameworkProfile& framework = request.constants.framework;
  if (ranks.job.train.objective == facts::Objective::sft) {
    STEELYARD_TRY(
        programs,
        step::programs_of(local, ranks.job, framework, request.machine.gpu, std::move(companions),
                          {.once = !request.vram, .workshop = request.workshop.get()}));
    ranks.programs = std::move(programs);
    if (request.companions.empty() && ranks.job.parallel.context == 1) {
      add_shorter_steps(request, own, ranks);
    }
    return ranks;
  }
  STEELYARD_TRY(roles, roles_of(request, ranks.job));
  STEELYARD_TRY(programs,
                step::programs_of_several(local, ranks.job, framework, request.machine.gpu,
                                          std::move(companions), roles.alignment));
  ranks.programs = std::move(programs);
  ranks.flops_beside = roles.flops_per_sample;
  return ranks;
}

std::vector<const step::Program*> programs_only(const std::vector<step::RankProgram>& programs) {
  std::vector<const step::Program*> only;
  for (const step::RankProgram& rank : programs) only.push_back(&rank.program);
  return only;
}

// Workspaces of products: of the library, and of an engine that brings its own.
facts::DeviceMemoryConstants device_of(const Request& request, const facts::Job& resolved) {
  const facts::Gpu& gpu = request.machine.gpu;
  if (facts::computes_on_host(gpu)) return {};  // neither a context nor workspaces
  facts::DeviceMemoryConstants device =
      request.constants.device_memory.on(gpu.architecture).over(gpu.link.value, gpu.peer_access);
  std::map<std::string, std::string, std::less<>> words = request.constants.framework.operators;
  if (resolved.megatron) {
    for (const auto& [composite, word] : resolved.megatron->operators) words[composite] = word;
    const auto& keys = *resolved.megatron;
    device.engine_workspaces = keys.engine_workspaces;
    device.gemm_workspace = keys.library_workspace.value_or(device.gemm_workspace);
  }
  const auto gemm = words.find("gemm");
  if (gemm == words.end() || gemm->second != "own_workspace") device.engine_workspace = {};
  return device;
}

}  // namespace steelyard::plan
