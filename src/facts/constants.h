// Figures that are neither of the job nor of the machine: calibration of GPUs, habits of
// frameworks, costs of host processes. They live in data files (catalog/) with their source; these
// are the structs that the files fill.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/quantity.h"
#include "facts/loader.h"
#include "facts/origin.h"
#include "facts/value.h"

namespace steelyard::facts {

// How a framework carries out the model's operators: which variant of each composite operator runs
// (the variants are named by technique, see step/operators.h) and which habits change lifetimes.
// One file per framework: catalog/frameworks/*.toml.
enum class AllocatorKind {
  caching,  // PyTorch's: segments as they are needed
  bfc,      // TensorFlow's and XLA's: one pool, taken at the start
};

// How a framework takes the card's memory.
struct AllocatorHabits {
  AllocatorKind kind = AllocatorKind::caching;
  // Of the pool that bfc takes at once: a share of the card; none: all that is free beside the
  // context but DeviceMemoryConstants::pool_reserve.
  std::optional<Ratio> pool_share{};
};

struct FrameworkProfile {
  std::string name;
  // Of the software that it describes, by package: an object of texts.
  Value versions{};
  // Composite operator ("rms_norm", "rotary", "gated_activation", "loss", ...) -> variant.
  std::map<std::string, std::string, std::less<>> operators;
  // The caller keeps `outputs.logits` alive through backward (Hugging Face Trainer, plain loops).
  bool keeps_logits = false;
  // zero_grad(set_to_none=True): gradients are freed before the next forward.
  bool gradients_set_to_none = true;
  // DDP: gradients are views of the buckets (gradient_as_bucket_view=True).
  bool ddp_gradient_as_bucket_view = false;
  Bytes ddp_bucket = Bytes(25 * 1024 * 1024);
  // A pipeline stage lets go of an output once it is sent (Megatron's deallocate_output_tensor);
  // otherwise it stays until its backward pass.
  bool pipeline_releases_outputs = false;
  // A model chunk keeps its last input and that input's gradient until it receives the next one.
  bool pipeline_holds_inputs = false;
  // Of every micro-batch of a step, as torch.distributed.pipelining: a buffer for what a stage
  // receives, made once; until the next step begins the outputs, the inputs' gradients, and the
  // logits, which the last stage returns in one piece.
  bool pipeline_keeps_buffers = false;
  bool pipeline_keeps_outputs = false;
  bool pipeline_keeps_gradients = false;
  bool pipeline_returns_logits = false;
  // The dropout probabilities of the model's configuration apply (train mode); some recipes set 0.
  bool dropout = true;
  // What runs is compiled as a whole, whatever train.compile says.
  bool always_compiled = false;
  AllocatorHabits allocator;
  // What of the framework is not modelled; plans carry it as a warning. Empty: nothing to say.
  std::string caveat{};
  bool supported = true;  // false: known by name, rules not built yet
  std::string reason;     // why it is not supported
  std::vector<std::string> sources;
};

// What NCCL holds on a GPU that its node joins to the others in this way.
struct CollectivePath {
  std::int64_t channels = 0;
  Bytes per_channel;
  Bytes once;  // whatever the number of communicators: kernels and what comes with them
};

// What differs on one GPU architecture; absent: as everywhere.
struct DeviceMemoryOverride {
  std::optional<Bytes> context, nvls, gemm_workspace, engine_workspace, pool_reserve;
  std::optional<CollectivePath> fabric;
};

// Memory on the GPU outside of tensors. catalog/calibration/device_memory.toml
struct DeviceMemoryConstants {
  Bytes context;                 // CUDA context and loaded kernels
  Bytes collective_per_channel;  // NCCL buffers, per channel and direction pair
  std::int64_t collective_channels = 0;
  Bytes nvls;                     // NVLink SHARP buffers per communicator on nodes that have it
  Bytes collective_once{};        // NCCL, beside the communicators
  BytesPerSecond bridge_up_to{};  // a faster link is a fabric, the figures above
  CollectivePath bridge, peer, shared;
  Bytes gemm_workspace;           // per handle, inside the allocator
  std::int64_t gemm_handles = 2;  // forward thread and autograd thread
  std::int64_t engine_workspaces = 1;
  Bytes engine_workspace{};  // of Transformer Engine's own products, inside the allocator
  Bytes pool_reserve{};      // what a pool that takes all the rest leaves free
  std::string source;
  std::map<std::string, DeviceMemoryOverride, std::less<>> by_architecture;

  // The figures on a GPU of that architecture (Gpu::architecture; "" when unknown).
  [[nodiscard]] DeviceMemoryConstants on(std::string_view architecture) const {
    DeviceMemoryConstants here = *this;
    if (const auto found = by_architecture.find(architecture); found != by_architecture.end()) {
      here.context = found->second.context.value_or(context);
      here.nvls = found->second.nvls.value_or(nvls);
      here.gemm_workspace = found->second.gemm_workspace.value_or(gemm_workspace);
      here.engine_workspace = found->second.engine_workspace.value_or(engine_workspace);
      here.pool_reserve = found->second.pool_reserve.value_or(pool_reserve);
      if (const auto& fabric = found->second.fabric) {
        here.collective_channels = fabric->channels;
        here.collective_per_channel = fabric->per_channel;
        here.collective_once = fabric->once;
      }
    }
    return here;
  }

  // NCCL's buffers for so many communicators, outside of the allocator.
  [[nodiscard]] Bytes collectives(std::int64_t communicators) const {
    if (communicators == 0) return {};
    return collective_once + (collective_per_channel * collective_channels + nvls) * communicators;
  }

  // The figures where that link, one way, joins the GPUs of a node: a fabric, a bridge, or (0)
  // none. Then NCCL sends over PCIe into the other's memory, or through host memory where GPUs have
  // no access to each other. Unknown: as on a fabric, which holds most.
  [[nodiscard]] DeviceMemoryConstants over(std::optional<BytesPerSecond> link,
                                           bool peer_access) const {
    if (!link || *link > bridge_up_to) return *this;
    const CollectivePath& unjoined = peer_access ? peer : shared;
    const CollectivePath& path = *link > BytesPerSecond() ? bridge : unjoined;
    DeviceMemoryConstants here = *this;
    here.collective_channels = path.channels;
    here.collective_per_channel = path.per_channel;
    here.collective_once = path.once;
    here.nvls = {};
    return here;
  }
};

// Kernels that move more bytes than they read and write at best, or move them slower: what they do
// over their traffic at the usual share of the bandwidth.
struct KernelGroup {
  double traffic = 1.0;
  std::vector<std::string> operations;
};

// The attention kernels of a framework's time over those the constants hold for.
struct AttentionRates {
  Ratio forward{1.0}, backward{1.0};
  // From this compute capability on its "flash" runs cuDNN's kernels.
  std::optional<double> cudnn_from{};
};

// What the host takes for one operation of layers, whatever the number of kernels in it and around
// it: of a router and of experts, of all else, and of a product whose weight is gathered for it.
struct CallTimes {
  Seconds layers, experts, weights{};
};

// What a processor reaches of its peaks, by kind of work. catalog/calibration/pace.toml
struct EfficiencyConstants {
  Ratio gemm;                         // of the rate of the matrix units, large matrices
  Ratio gemm_peak{1.0};               // at most, of the dense peak of the precision
  Ratio gemm_tf32{1.0};               // of that, when fp32 is multiplied as tf32
  Ratio gemm_vector{1.0};             // of the peak, where no matrix unit is used
  Ratio gemm_unaligned{1.0};          // of that, when a side is no multiple of 16 bytes
  Ratio gemm_unaligned_batched{1.0};  // of the vector units' peak: many such products at once
  // Tiles (pace/tiles.h): what loading costs on matrix and on vector units, start and waves.
  double gemm_feed = 0.0, gemm_vector_feed = 0.0, gemm_start = 0.0, gemm_quantisation = 0.0;
  Ratio attention_forward, attention_backward;
  Ratio cudnn_attention_forward{}, cudnn_attention_backward{};  // train.attention = "cudnn"
  double attention_half_intensity = 0.0;  // flop per byte at which attention reaches half of it
  Ratio memory;                           // of the HBM bandwidth, pointwise kernels
  // Convolutions that no matrix unit multiplies (pace/convolutions.h): those that Winograd's small
  // tiles fit, over their products' rate; gradients of weights and of inputs with a stride.
  double winograd = 1.0;
  Ratio convolution_weights{1.0}, convolution_strided{1.0};
  double convolution_weights_start = 0.0;  // of a tile of such a gradient, in steps of its depth
  // Instructions of kernels that convolve each channel for itself. A framework's own: for each
  // product, and for each of a weight's gradient. The library's: for each element of the result,
  // and for each product.
  double depthwise_product = 0.0, depthwise_weight_product = 0.0;
  double depthwise_library_result = 0.0, depthwise_library_product = 0.0;
  double convolution_layout = 0.0;  // tensors whose channels come first are copied, so often
  Ratio grouped_convolution{};  // of the matrix units' peak, groups of 64 channels, channels last
  Ratio link;                   // of the GPU link, large messages
  Ratio network;
  Ratio host_link;
  Ratio host_peer{1.0};           // of the host link, GPU to GPU where no GPU link exists
  Seconds kernel_launch;          // host time to launch one kernel, eager
  Seconds kernel_launch_forward;  // the same in the forward pass, where Python drives
  Seconds kernel_floor{};         // on the GPU, of every kernel besides its work
  Seconds collective_latency;     // per step of a ring
  Seconds network_latency{};      // per step of a ring that crosses to another node
  // Longer computation while communication runs beside it, 0.2: 1.2 x, where that moves
  // `overlap_traffic` of the memory's bandwidth over its link; in proportion for more or less.
  Ratio overlap_slowdown{}, overlap_traffic{};
  Ratio step_overhead{};  // of a step over all that: jitter, logging
  Ratio rank_spread{};    // deviation of how long GPUs of one kind take: the slowest is waited for
  std::map<std::string, KernelGroup, std::less<>> kernels{};
  // By framework, as built in its profile's version.
  std::map<std::string, AttentionRates, std::less<>> attention_of{};
  // Rate of the matrix units over the vector units' fp32 peak, by compute capability ("8.6").
  std::map<std::string, double, std::less<>> matrix_over_vector{};
  // Multiprocessors by GPU (catalogue id); `multiprocessors_else` where nobody says.
  std::map<std::string, double, std::less<>> multiprocessors{};
  double multiprocessors_else = 1.0;
  // What a multiprocessor keeps in flight of what it loads, and what memory takes to answer; 0: no
  // limit. How sharply the lower of that and the bandwidth sets the rate: 1 is a sum of times.
  Bytes loads_in_flight{};
  // The share of it where fewer threads are resident, by compute capability ("7.5"): (0, 1].
  std::map<std::string, double, std::less<>> loads_in_flight_of{};
  // The share of it by 16-bit kernels in blocks of 64 threads (pace::Loads).
  Ratio loads_by_blocks_of_64{0.25};
  Seconds memory_latency{};
  double loads_sharpness = 1.0;
  Ratio best_product{1.0};  // of a usual card, of its sheet's rate (Gpu::measured_bf16)
  // Of cards for which nobody printed it, by GPU (catalogue id).
  std::map<std::string, double, std::less<>> best_product_of{};
  std::map<std::string, CallTimes, std::less<>> calls_of{};  // by framework or parallel.sharding
  // Keys of constants that are set by what is in print for that kernel and that no fit moves.
  std::vector<std::string> printed{};
  std::string source;
  // The same for processors of one architecture (Gpu::architecture), complete; empty inside.
  std::string architecture{};
  std::vector<EfficiencyConstants> by_architecture{};

  // The figures on a GPU of that architecture ("" when unknown).
  [[nodiscard]] const EfficiencyConstants& on(std::string_view name) const {
    for (const EfficiencyConstants& here : by_architecture) {
      if (here.architecture == name) return here;
    }
    return *this;
  }
};

// Host memory and speed of processes. catalog/calibration/host.toml
struct HostConstants {
  Bytes system;                             // kernel, daemons
  Bytes process;                            // interpreter, framework, CUDA host side, per rank
  Bytes loader_worker;                      // one loader process beyond shared pages
  Bytes index_per_sample;                   // dataset index, per sample and process that touches it
  Bytes largest_checkpoint_shard;           // file-by-file loading holds one of them
  Bytes shared_memory_segment;              // of one NCCL connection through host memory
  std::int64_t shared_memory_channels = 0;  // such connections per pair of neighbours
  double jpeg_seconds_per_byte = 0.0;       // decode cost: bytes in ...
  double jpeg_seconds_per_pixel = 0.0;      // ... and pixels out
  double jpeg_bytes_per_pixel = 0.0;        // compressed bytes per pixel of a usual photograph
  Ratio image_transform;                    // decode, resize, crop and normalise over decode alone
  double video_seconds_per_frame = 0.0;     // decoding one frame, one core
  double video_frames_between_keys = 0.0;   // distance of key frames
  std::map<std::string, double, std::less<>> decode_seconds;  // by data kind, one sample, one core
  std::map<std::string, double, std::less<>> decode_seconds_per_byte;  // by data kind, stored bytes
  std::map<std::string, double, std::less<>>
      decoding_memory{};                                       // by data kind, of its stored bytes
  std::map<std::string, double, std::less<>> sample_spread;    // by data kind: deviation over mean
  std::map<std::string, double, std::less<>> storage_latency;  // seconds, by name of the storage
  Seconds assemble_per_byte;                                   // collate and pin, one thread
  Seconds batch_hand_over{};   // of a batch, whatever its size, in the worker and in the rank
  Seconds batch_wait{};        // and what it waits for besides, while nobody works on it
  Seconds file_read;           // opening, reading and closing a cached file, beyond its bytes
  BytesPerSecond thread_copy;  // one thread copying memory
  BytesPerSecond host_memory_bandwidth;  // one socket, when the machine does not say
  FlopsPerSecond core_products{};        // of one core, when the machine does not say
  BytesPerSecond socket_link{};          // between sockets, one way, when the machine does not say
  BytesPerSecond storage_read;           // of a local NVMe drive, when the machine does not say
  BytesPerSecond storage_write{};
  BytesPerSecond pcie_copy;  // pinned host-to-device, when the machine does not say
  Ratio host_link_share;     // of the host link's raw rate that pinned copies reach
  std::string source;
  std::optional<LoaderProfile> loader{};  // of data.loader
};

struct Constants {
  FrameworkProfile framework;
  DeviceMemoryConstants device_memory;
  EfficiencyConstants efficiency;
  HostConstants host;
};

}  // namespace steelyard::facts
