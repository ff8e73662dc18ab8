#include "pace/prices.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "facts/host.h"
#include "pace/collectives.h"
#include "pace/roofline.h"

namespace steelyard::pace {
namespace {

using step::EventKind;
using step::Program;

constexpr std::string_view kGrouped = "grouped_mm";        // operations of the step room
constexpr std::string_view kConvolutions = "convolution";  // of EfficiencyConstants::kernels
constexpr std::string_view kDepthwise = "depthwise_convolution";
constexpr std::string_view kScans = "scan";
constexpr std::string_view kEfficient = "efficient_attention";
constexpr std::string_view kGroupedCast = "grouped_quantize", kCounts = "counts_to_host";
constexpr std::string_view kExpertBias = ": expert_bias";
constexpr std::string_view kOptimizer = "optimizer", kClipping = "clip_grad_norm";
constexpr std::string_view kUnscaling = "unscale", kOverflow = "check_overflow";
constexpr std::string_view kSummedOverflow = "sum_overflow", kPartitionCopies = "partition_copies";

Result<void> mark(std::vector<bool>& used, std::int32_t index, const char* what) {
  if (index < 0 || static_cast<std::size_t>(index) >= used.size()) {
    return fail(our_bug(std::string("program: event of ") + what, std::to_string(index),
                        "an index below " + std::to_string(used.size())));
  }
  used[static_cast<std::size_t>(index)] = true;
  return {};
}

// What a CUDA graph of a module holds (Megatron-LM, --cuda-graph-modules; transformer/
// transformer_layer.py, _te_cuda_graph_capture): names of the step room begin with these. Experts
// and their exchange are in none of them, since their shapes depend on where tokens go.
struct GraphedModule {
  std::string_view word, begins;
};
constexpr std::array<GraphedModule, 13> kGraphed = {{{"attn", "input_layernorm"},
                                                     {"attn", "self_attention"},
                                                     {"attn", "self_attn_bda"},
                                                     {"mamba", "norm"},
                                                     {"mamba", "mixer"},
                                                     {"mamba", "mamba_bda"},
                                                     {"mlp", "pre_mlp_layernorm"},
                                                     {"mlp", "mlp.linear_fc"},
                                                     {"mlp", "mlp.activation_func"},
                                                     {"mlp", "mlp_bda"},
                                                     {"moe_router", "pre_mlp_layernorm"},
                                                     {"moe_router", "mlp.router"},
                                                     {"moe_router", "mlp.shared_experts"}}};
constexpr std::string_view kWholeLayers = "layers", kOfLayers = "mlp";  // graphs without modules

// shared_experts.py: their work on a stream of its own, beside the exchanges of the experts'
// tokens; graphs of the router do not hold it then (transformer_layer.py).
constexpr std::string_view kSharedExperts = "mlp.shared_experts", kExperts = "mlp.experts";

bool held_by(std::string_view modules, std::string_view name) {
  if (modules.empty()) return false;
  const bool all = modules == kWholeLayers;
  if (all && name.starts_with(kOfLayers)) return true;
  return std::any_of(kGraphed.begin(), kGraphed.end(), [&](const GraphedModule& module) {
    return name.starts_with(module.begins) &&
           (all || modules.find(fmt::format(" {} ", module.word)) != std::string_view::npos);
  });
}

// Whether Megatron-LM's arguments lay this word over the framework's profile.
bool imported(const Request& request, std::string_view key, std::string_view word) {
  if (!request.job->megatron) return false;
  const auto own = request.job->megatron->operators.find(key);
  return own != request.job->megatron->operators.end() && own->second == word;
}

// The modules that CUDA graphs hold, each between blanks, or kWholeLayers; none: nothing.
std::string graphed_modules(const Request& request) {
  if (!imported(request, "launches", "graphs_of_modules")) return {};
  const auto modules = request.job->megatron->operators.find("graphed_modules");
  return modules == request.job->megatron->operators.end() ? std::string() : modules->second;
}

bool launches_nothing(const Request& request) {
  return request.launched_as_graphs || imported(request, "launches", "graphs");
}

// Beside launching its kernels: what a framework's own modules do before and around them. Adding
// the biases expert by expert is a loop over torch's own operations.
Seconds call_of(const Request& request, const facts::EfficiencyConstants& constants,
                std::string_view name) {
  const auto own = constants.calls_of.find(request.job->framework);
  const bool torchs_own = name.ends_with(kExpertBias);
  if (own == constants.calls_of.end() || launches_nothing(request) || torchs_own) return {};
  const bool experts = name.starts_with(kExperts) || name.starts_with("mlp.router");
  return experts ? own->second.experts : own->second.layers;
}

// A linear layer whose weight is gathered before each pass and let go behind it: what the hooks
// around it and around the modules that hold it do (calls_of, by the sharding's name).
Seconds hooks_of(const Request& request, const facts::EfficiencyConstants& constants,
                 std::string_view operation) {
  const auto own = constants.calls_of.find(facts::name_of(request.job->parallel.sharding));
  if (own == constants.calls_of.end() || launches_nothing(request)) return {};
  return operation == "mm" || operation == "mm_input_gradient" ? own->second.weights : Seconds();
}

TokenSide tokens_of(std::string_view operation) {
  if (operation == "mm" || operation == "mm_input_gradient") return TokenSide::rows;
  return operation == "mm_weight_gradient" ? TokenSide::depth : TokenSide::none;
}

// What follows the name of a convolution: none: its result.
ConvolutionPass pass_of(std::string_view operation) {
  const std::size_t begin = operation.find(kConvolutions);
  if (begin == std::string_view::npos) return ConvolutionPass::none;
  const std::string_view rest = operation.substr(begin + kConvolutions.size());
  if (rest == "_input_gradient") return ConvolutionPass::input;
  if (rest == "_strided_input_gradient") return ConvolutionPass::strided_input;
  if (rest == "_weight_gradient") return ConvolutionPass::weight;
  return rest.empty() ? ConvolutionPass::forward : ConvolutionPass::none;
}

// What the library convolves channel by channel waits for memory, tensors of 16 bits all.
bool convolves_by_itself(const Request& request) {
  const facts::TrainKeys& train = request.job->train;
  const bool wide =
      train.precision == facts::Precision::fp32 || train.precision == facts::Precision::tf32;
  const bool first = train.memory_format == facts::MemoryFormat::contiguous;
  return wide && (request.depthwise == Depthwise::own ||
                  (request.depthwise == Depthwise::own_channels_first && first));
}

// Of the 16 bytes that a thread can load at once. ATen's own kernels load four elements, since
// PyTorch 2.7 on Hopper and later all 16 bytes (CUDALoops.cuh, elems_per_thread); what compilers
// write (Triton, XLA) loads all, as do the kernels of Megatron-LM's libraries and the optimizer's
// over lists (MultiTensorApply.cuh: four elements of fp32). What blocks of 64
// threads keep of it (before PyTorch 1.11) is fitted, and fp32 shows nothing of it.
double load_of(const Request& request, std::string_view operation,
               const facts::EfficiencyConstants& constants) {
  const facts::TrainKeys& train = request.job->train;
  const bool eager = !train.compile && !request.launched_as_graphs && !request.job->megatron;
  const bool wide =
      train.precision == facts::Precision::fp32 || train.precision == facts::Precision::tf32;
  const bool optimizer =
      operation == kOptimizer || operation == kClipping || operation == kUnscaling;
  constexpr double kFourShortElements = 0.5, kHopper = 9.0;
  if (!eager || wide || optimizer) return 1.0;
  if (request.loads == Loads::by_blocks_of_64) return constants.loads_by_blocks_of_64.value();
  const bool hopper = request.machine->gpu.compute_capability.value_or(0.0) >= kHopper;
  return request.loads == Loads::bytes_16_since_hopper && hopper ? 1.0 : kFourShortElements;
}

// The kernels of a step of the optimizer: a Python loop runs its operations for each parameter,
// torch's foreach and fused forms for lists of them.
void set_optimizer(const Request& request, std::string_view operation, Nature& nature) {
  if (operation == kUnscaling ||
      operation == kPartitionCopies) {  // one kernel over lists of tensors, whatever steps them
    nature.together = true;
    nature.kernels = 1.0;
    nature.passes = 2.0;
  }
  if (operation == kOverflow) nature.kernels = 8.0;
  if (operation == kSummedOverflow) nature.kernels = 3.0;  // the last copies the sum
  if (operation != kOptimizer && operation != kClipping) return;
  const facts::OptimizerKeys& keys = request.job->train.optimizer;
  const bool fused = keys.fused.value_or(false);
  nature.together = fused || keys.foreach.value_or(true);
  constexpr double kAdam = 9.0, kNormAndScale = 2.0, kClipPasses = 3.0, kAdamPasses = 20.0,
                   kFusedPasses = 7.0;
  const double own = request.optimizer_kernels;
  const double adam = !nature.together && own > 0.0 ? own : kAdam;
  if (operation == kClipping) {
    nature.kernels = kNormAndScale;
    nature.passes = kClipPasses;
  } else {
    nature.kernels = fused ? 1.0 : adam;
    nature.passes = fused ? kFusedPasses : kAdamPasses;
  }
}

// By the program's names ("model.layers: layer_norm"): what the operation says of its kernels.
std::vector<Nature> natures_of(const Program& program, const Request& request,
                               const facts::EfficiencyConstants& constants) {
  const bool channels_first = request.job->train.memory_format == facts::MemoryFormat::contiguous;
  std::map<std::string_view, Nature> by_operation;
  for (const auto& [name, group] : constants.kernels) {
    const Nature nature{.traffic = group.traffic,
                        .slow_products = name == kScans,
                        .copies_channels = channels_first && name == kConvolutions};
    for (const std::string& operation : group.operations) by_operation[operation] = nature;
  }
  const std::string modules = graphed_modules(request);
  std::vector<Nature> natures;
  for (const std::string& name : program.names) {
    const std::size_t colon = name.rfind(": ");
    const std::string_view operation =
        std::string_view(name).substr(colon == std::string::npos ? 0 : colon + 2);
    const auto known = by_operation.find(operation);
    natures.push_back(known == by_operation.end() ? Nature{} : known->second);
    natures.back().tokens = tokens_of(operation);
    natures.back().grouped = operation.starts_with(kGrouped);
    natures.back().convolution = operation.starts_with(kConvolutions);
    natures.back().channels_last = natures.back().convolution && !channels_first;
    natures.back().pass = pass_of(operation);
    natures.back().depthwise = operation.starts_with(kDepthwise);
    natures.back().own_depthwise = natures.back().depthwise && convolves_by_itself(request);
    natures.back().efficient = operation.starts_with(kEfficient);
    natures.back().vector_unaligned = request.unaligned_on_vector_units;
    natures.back().each_group = (natures.back().grouped || operation == kGroupedCast) &&
                                imported(request, "grouped_products", "one_kernel_each");
    natures.back().read_by_host = operation == kCounts || operation == kSummedOverflow;
    natures.back().load = load_of(request, operation, constants);
    set_optimizer(request, operation, natures.back());
    natures.back().call = hooks_of(request, constants, operation);
    if (colon == std::string::npos) continue;
    natures.back().shared_expert =
        name.starts_with(kSharedExperts) && imported(request, "shared_experts", "beside_exchanges");
    natures.back().in_graph = held_by(modules, name) && !natures.back().shared_expert;
    natures.back().call += call_of(request, constants, name);
  }
  return natures;
}

// The processor is one that these rates name.
bool concerns(const facts::AttentionRates& rates, const Request& request) {
  const auto& capability = request.machine->gpu.compute_capability;
  return rates.cudnn_from && capability && *capability >= *rates.cudnn_from;
}

// Exchanges that shared experts run beside, by the program's communications; empty: none do.
std::vector<bool> beside_shared(const Program& program, const Request& request) {
  std::vector<bool> beside;
  if (!imported(request, "shared_experts", "beside_exchanges")) return beside;
  for (const step::Communication& sent : program.communication) {
    const auto name = static_cast<std::size_t>(sent.name);
    beside.push_back(sent.kind == step::Collective::all_to_all && name < program.names.size() &&
                     program.names[name].starts_with(kExperts));
  }
  return beside;
}

Nature nature_of(std::int32_t text, const std::vector<Nature>& natures) {
  const auto name = static_cast<std::size_t>(text);
  return name < natures.size() ? natures[name] : Nature{};
}

}  // namespace

Error our_bug(std::string subject, std::string found, std::string accepted) {
  Error error;
  error.code = ErrorCode::internal;
  error.subject = std::move(subject);
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  return error;
}

std::int64_t gpus_of(const Request& request) {
  const facts::MachineKeys& keys = request.job->machine;
  return checked_multiply(keys.nodes, keys.gpus.value_or(request.machine->gpus));
}

namespace {

// EfficiencyConstants::attention_of by kernel, not by framework.
constexpr std::string_view kOlderLibrary = "cudnn_before_9";

void slow_attention(const facts::AttentionRates& rates, facts::EfficiencyConstants& constants) {
  constants.attention_forward = Ratio(constants.attention_forward.value() * rates.forward.value());
  constants.attention_backward =
      Ratio(constants.attention_backward.value() * rates.backward.value());
}

}  // namespace

facts::EfficiencyConstants constants_for(const Request& request) {
  facts::EfficiencyConstants constants = request.efficiency->on(request.machine->gpu.architecture);
  const auto own = constants.attention_of.find(request.job->framework);
  if (request.cudnn_attention || request.job->train.attention == facts::Attention::cudnn) {
    constants.attention_forward = constants.cudnn_attention_forward;
    constants.attention_backward = constants.cudnn_attention_backward;
    const auto older = constants.attention_of.find(kOlderLibrary);
    if (request.attention_before_cudnn_9 && older != constants.attention_of.end() &&
        concerns(older->second, request)) {
      slow_attention(older->second, constants);
    }
  }
  if (own != constants.attention_of.end()) slow_attention(own->second, constants);
  return constants;
}

Result<Used> used_by_step(const Program& program) {
  Used used{std::vector<bool>(program.work.size()),
            std::vector<bool>(program.communication.size())};
  for (const step::Pass& pass : program.step) {
    for (const step::Phase& phase : pass.phases) {
      for (const step::Body& body : phase.bodies) {
        for (const step::Event& event : body.events) {
          if (event.kind == EventKind::work) {
            STEELYARD_CHECK(mark(used.work, event.index, "work"));
          } else if (event.kind == EventKind::communicate) {
            STEELYARD_CHECK(mark(used.communication, event.index, "communication"));
          }
        }
      }
    }
  }
  return used;
}

namespace {

// The GPU while all others of the node copy too: they share the lanes of PCIe switches, and where
// ranks are not bound the link between sockets.
facts::Gpu among_others(const Request& request, std::int64_t gpus) {
  const facts::Machine& machine = *request.machine;
  facts::Gpu gpu = machine.gpu;
  if (!gpu.host_link) return gpu;
  BytesPerSecond rate = *gpu.host_link * (1.0 / facts::sharers_of_uplink(machine, gpus));
  if (!request.job->machine.numa_binding && request.socket_link.value() > 0.0) {
    const double crossing = facts::socket_shares(facts::numa_layout(machine, gpus)).to_gpus;
    const double per_gpu = crossing * static_cast<double>(gpus);
    if (per_gpu > 0.0) rate = std::min(rate, request.socket_link * (1.0 / per_gpu));
  }
  gpu.host_link.value = rate;
  return gpu;
}

std::optional<FlopsPerSecond> share_of(std::optional<FlopsPerSecond> rate, double part) {
  if (rate) rate = *rate * part;
  return rate;
}

// What the host takes, where it launches kernels one by one.
void set_launches(const Request& request, const facts::EfficiencyConstants& constants,
                  Prices& prices) {
  if (launches_nothing(request)) return;
  prices.kernel_launch = constants.kernel_launch;
  prices.kernel_launch_forward = constants.kernel_launch_forward;
  const auto own = constants.calls_of.find(request.job->framework);
  if (own != constants.calls_of.end()) prices.collective_call = own->second.layers;
}

}  // namespace

Prices price(const Program& program, const Used& used, const Request& request,
             const facts::EfficiencyConstants& constants, Missing& missing) {
  const facts::Machine& machine = *request.machine;
  const std::int64_t gpus = request.job->machine.gpus.value_or(machine.gpus);
  const double part = 1.0 / static_cast<double>(std::max<std::int64_t>(gpus, 1));
  const HostShare host{.memory = request.host_memory * part,
                       .stepping = request.host_stepping * part,
                       .drive_read = request.drive_read * part,
                       .drive_write = request.drive_write * part,
                       .wide = share_of(request.host_products.wide, part),
                       .half = share_of(request.host_products.half, part)};
  Prices prices;
  set_launches(request, constants, prices);
  prices.gathers_beside_forward = imported(request, "parameter_gathers", "beside_forward");
  prices.beside_shared = beside_shared(program, request);
  prices.schedule = request.job->parallel.schedule;
  prices.workshop = request.workshop;
  if (std::ssize(request.stage_shares) == program.stages)
    prices.stage_shares = request.stage_shares;
  if (request.job->megatron) prices.micro_batch_group = request.job->megatron->micro_batch_group;
  const facts::Gpu sharing = among_others(request, gpus);
  prices.work.resize(program.work.size());
  const std::vector<Nature> natures = natures_of(program, request, constants);
  prices.communication.resize(program.communication.size());
  prices.stolen.resize(program.communication.size());
  for (std::size_t i = 0; i < program.work.size(); ++i) {
    if (!used.work[i]) continue;
    if (on_the_host(program.work[i].kind)) {
      const auto seconds = host_time_of(program.work[i], sharing, constants, host, missing);
      prices.work[i].seconds = seconds.value_or(Seconds());
      continue;
    }
    prices.work[i] = time_of(program.work[i], machine.gpu, constants, missing,
                             nature_of(program.work[i].name, natures))
                         .value_or(WorkTime());
  }
  for (std::size_t i = 0; i < program.communication.size(); ++i) {
    if (!used.communication[i]) continue;
    const Seconds time =
        time_of(program.communication[i], machine, constants, missing).value_or(Seconds());
    // Kernels that store to other GPUs by themselves are slower than NCCL's copies.
    prices.communication[i] = time * nature_of(program.communication[i].name, natures).traffic;
    const double slower =
        constants.overlap_slowdown.value() *
        crowding_of(program.communication[i], machine, constants, prices.communication[i]);
    prices.stolen[i] = prices.communication[i] * (slower / (1.0 + slower));
  }
  return prices;
}

}  // namespace steelyard::pace
