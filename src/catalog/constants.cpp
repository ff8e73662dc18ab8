#include "catalog/constants.h"

#include <fmt/core.h>

#include <map>
#include <string>
#include <utility>

#include "catalog/merge.h"
#include "catalog/settings.h"
#include "catalog/units.h"

namespace steelyard::catalog {

namespace {

Result<facts::AllocatorHabits> allocator_from(const facts::Value& table,
                                              const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::AllocatorHabits habits;
  const std::string kind = settings.text("kind");
  if (kind == "bfc") {
    habits.kind = facts::AllocatorKind::bfc;
    if (settings.has("pool_share_ratio")) habits.pool_share = settings.ratio("pool_share");
  }
  STEELYARD_CHECK(settings.finish());
  if (kind == "bfc" || kind == "caching") return habits;
  return fail(Error{.code = ErrorCode::bad_input,
                    .subject = "allocator.kind",
                    .found = kind,
                    .accepted = "caching or bfc",
                    .file = file.string()});
}

}  // namespace

Result<facts::FrameworkProfile> profile_from(const facts::Value& table, std::string name,
                                             const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::FrameworkProfile profile;
  profile.name = std::move(name);
  profile.supported = settings.flag("supported");
  profile.sources = settings.texts("sources");
  profile.versions = settings.table("versions");
  if (!profile.supported) {
    profile.reason = settings.text("reason");
    STEELYARD_CHECK(settings.finish());
    return profile;
  }
  profile.keeps_logits = settings.flag("keeps_logits");
  profile.gradients_set_to_none = settings.flag("gradients_set_to_none");
  profile.ddp_gradient_as_bucket_view = settings.flag("ddp_gradient_as_bucket_view");
  profile.pipeline_releases_outputs = settings.flag("pipeline_releases_outputs");
  profile.pipeline_holds_inputs = settings.flag("pipeline_holds_inputs");
  profile.pipeline_keeps_buffers = settings.flag("pipeline_keeps_buffers");
  profile.pipeline_keeps_outputs = settings.flag("pipeline_keeps_outputs");
  profile.pipeline_keeps_gradients = settings.flag("pipeline_keeps_gradients");
  profile.pipeline_returns_logits = settings.flag("pipeline_returns_logits");
  profile.ddp_bucket = settings.bytes("ddp_bucket");
  profile.dropout = settings.flag("dropout");
  profile.always_compiled = settings.flag("always_compiled");
  if (settings.has("caveat")) profile.caveat = settings.text("caveat");
  STEELYARD_TRY(allocator, allocator_from(settings.table("allocator"), file));
  profile.allocator = allocator;
  const facts::Value& variants = settings.table("operators");
  Settings operators(variants, file);
  for (const auto& [key, variant] : *variants.as_object()) {
    profile.operators.emplace(key, operators.text(key));
  }
  STEELYARD_CHECK(operators.finish());
  STEELYARD_CHECK(settings.finish());
  return profile;
}

namespace {

Result<facts::CollectivePath> path_from(const facts::Value& table,
                                        const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::CollectivePath path;
  path.channels = settings.whole("channels");
  path.per_channel = settings.bytes("per_channel");
  path.once = settings.bytes("once");
  STEELYARD_CHECK(settings.finish());
  return path;
}

Result<facts::DeviceMemoryOverride> override_from(const facts::Value& table,
                                                  const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::DeviceMemoryOverride changed;
  if (settings.has_bytes("context")) changed.context = settings.bytes("context");
  if (settings.has_bytes("nvls")) changed.nvls = settings.bytes("nvls");
  if (settings.has_bytes("gemm_workspace")) {
    changed.gemm_workspace = settings.bytes("gemm_workspace");
  }
  if (settings.has_bytes("engine_workspace")) {
    changed.engine_workspace = settings.bytes("engine_workspace");
  }
  if (settings.has_bytes("pool_reserve")) changed.pool_reserve = settings.bytes("pool_reserve");
  if (settings.has("fabric")) {
    STEELYARD_TRY(fabric, path_from(settings.table("fabric"), file));
    changed.fabric = fabric;
  }
  STEELYARD_CHECK(settings.finish());
  return changed;
}

}  // namespace

Result<facts::DeviceMemoryConstants> device_memory_from(const facts::Value& table,
                                                        const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::DeviceMemoryConstants constants;
  constants.context = settings.bytes("context");
  constants.collective_per_channel = settings.bytes("collective_per_channel");
  constants.collective_channels = settings.whole("collective_channels");
  constants.nvls = settings.bytes("nvls");
  constants.bridge_up_to = settings.rate("bridge_up_to");
  const facts::Value& bridged = settings.table("bridge");
  const facts::Value& over_pcie = settings.table("peer");
  const facts::Value& over_host = settings.table("shared");
  constants.gemm_workspace = settings.bytes("gemm_workspace");
  constants.gemm_handles = settings.whole("gemm_handles");
  constants.engine_workspace = settings.bytes("engine_workspace");
  constants.pool_reserve = settings.bytes("pool_reserve");
  constants.source = settings.text("source");
  for (const auto& [architecture, values] : *settings.table("architecture").as_object()) {
    STEELYARD_TRY(changed, override_from(values, file));
    constants.by_architecture.emplace(architecture, changed);
  }
  STEELYARD_CHECK(settings.finish());
  STEELYARD_TRY(bridge, path_from(bridged, file));
  STEELYARD_TRY(peer, path_from(over_pcie, file));
  STEELYARD_TRY(shared, path_from(over_host, file));
  constants.bridge = bridge;
  constants.peer = peer;
  constants.shared = shared;
  return constants;
}

namespace {

using Named = std::map<std::string, double, std::less<>>;

// A table of numbers by name: [decode_seconds].
Result<Named> numbers_of(const facts::Value& table, const std::filesystem::path& file) {
  Settings settings(table, file);
  Named numbers;
  for (const auto& [key, value] : *table.as_object()) numbers.emplace(key, settings.real(key));
  STEELYARD_CHECK(settings.finish());
  return numbers;
}

// By compute capability, as "7.5".
Result<Named> shares_of(const facts::Value& table, const std::filesystem::path& file) {
  STEELYARD_TRY(shares, numbers_of(table, file));
  for (const auto& [key, share] : shares) {
    const bool is_capability = key.size() >= 3 && key[key.size() - 2] == '.' &&
                               key.find_first_not_of("0123456789.") == std::string::npos;
    if (is_capability && share > 0.0 && share <= 1.0) continue;
    return fail(
        Error{.code = ErrorCode::bad_input,
              .subject = fmt::format("{}: loads_in_flight_of.{}", file.string(), key),
              .found = fmt::format("{}", share),
              .accepted = "a share above 0 and at most 1, by compute capability (\"7.5\")"});
  }
  return shares;
}

void read_products(Settings& settings, facts::EfficiencyConstants& constants) {
  constants.gemm = settings.ratio("gemm");
  constants.gemm_peak = settings.ratio("gemm_peak");
  constants.gemm_tf32 = settings.ratio("gemm_tf32");
  constants.gemm_vector = settings.ratio("gemm_vector");
  constants.gemm_unaligned = settings.ratio("gemm_unaligned");
  constants.gemm_unaligned_batched = settings.ratio("gemm_unaligned_batched");
  constants.gemm_feed = settings.real("gemm_feed");
  constants.gemm_vector_feed = settings.real("gemm_vector_feed");
  constants.gemm_start = settings.real("gemm_start");
  constants.gemm_quantisation = settings.real("gemm_quantisation");
  constants.attention_forward = settings.ratio("attention_forward");
  constants.attention_backward = settings.ratio("attention_backward");
  constants.cudnn_attention_forward = settings.ratio("cudnn_attention_forward");
  constants.cudnn_attention_backward = settings.ratio("cudnn_attention_backward");
  constants.attention_half_intensity = settings.real("attention_half_intensity");
}

void read_movement(Settings& settings, facts::EfficiencyConstants& constants) {
  constants.memory = settings.ratio("memory");
  constants.winograd = settings.real("winograd");
  constants.convolution_weights = settings.ratio("convolution_weights");
  constants.convolution_weights_start = settings.real("convolution_weights_start");
  constants.convolution_strided = settings.ratio("convolution_strided");
  constants.depthwise_product = settings.real("depthwise_product");
  constants.depthwise_weight_product = settings.real("depthwise_weight_product");
  constants.depthwise_library_result = settings.real("depthwise_library_result");
  constants.depthwise_library_product = settings.real("depthwise_library_product");
  constants.convolution_layout = settings.real("convolution_layout");
  constants.grouped_convolution = settings.ratio("grouped_convolution");
  constants.link = settings.ratio("link");
  constants.network = settings.ratio("network");
  constants.host_link = settings.ratio("host_link");
  constants.host_peer = settings.ratio("host_peer");
  constants.kernel_launch = settings.seconds("kernel_launch");
  constants.kernel_launch_forward = settings.seconds("kernel_launch_forward");
  constants.kernel_floor = settings.seconds("kernel_floor");
  constants.collective_latency = settings.seconds("collective_latency");
  constants.network_latency = settings.seconds("network_latency");
  constants.overlap_slowdown = settings.ratio("overlap_slowdown");
  constants.overlap_traffic = settings.ratio("overlap_traffic");
  constants.step_overhead = settings.ratio("step_overhead");
  constants.rank_spread = settings.ratio("rank_spread");
}

Result<facts::KernelGroup> kernel_group_from(const facts::Value& table,
                                             const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::KernelGroup group;
  group.traffic = settings.real("traffic");
  group.operations = settings.texts("operations");
  STEELYARD_CHECK(settings.finish());
  return group;
}

Result<facts::AttentionRates> attention_rates_from(const facts::Value& table,
                                                   const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::AttentionRates rates;
  rates.forward = settings.ratio("forward");
  rates.backward = settings.ratio("backward");
  if (settings.has("cudnn_from")) rates.cudnn_from = settings.real("cudnn_from");
  STEELYARD_CHECK(settings.finish());
  return rates;
}

Result<facts::CallTimes> call_times_from(const facts::Value& table,
                                         const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::CallTimes times;
  for (const auto& [member, seconds] :
       {std::pair{"layers", &times.layers}, std::pair{"experts", &times.experts},
        std::pair{"weights", &times.weights}}) {
    if (settings.has(std::string(member) + "_us")) *seconds = settings.seconds(member);
  }
  STEELYARD_CHECK(settings.finish());
  return times;
}

Result<facts::EfficiencyConstants> one_efficiency_from(const facts::Value& table,
                                                       const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::EfficiencyConstants constants;
  read_products(settings, constants);
  read_movement(settings, constants);
  constants.multiprocessors_else = settings.real("multiprocessors_else");
  constants.loads_in_flight = settings.bytes("loads_in_flight");
  constants.memory_latency = settings.seconds("memory_latency");
  constants.loads_sharpness = settings.real("loads_sharpness");
  constants.best_product = settings.ratio("best_product");
  constants.source = settings.text("source");
  if (settings.has("printed")) constants.printed = settings.texts("printed");
  STEELYARD_TRY(processors, numbers_of(settings.table("multiprocessors"), file));
  STEELYARD_TRY(matrix, numbers_of(settings.table("matrix_over_vector"), file));
  STEELYARD_TRY(best, numbers_of(settings.table("best_product_of"), file));
  constants.loads_by_blocks_of_64 = settings.ratio("loads_by_blocks_of_64");
  STEELYARD_TRY(resident, shares_of(settings.table("loads_in_flight_of"), file));
  constants.loads_in_flight_of = std::move(resident);
  constants.multiprocessors = std::move(processors);
  constants.best_product_of = std::move(best);
  constants.matrix_over_vector = std::move(matrix);
  for (const auto& [name, group] : *settings.table("kernels").as_object()) {
    STEELYARD_TRY(kernels, kernel_group_from(group, file));
    constants.kernels.emplace(name, std::move(kernels));
  }
  for (const auto& [framework, rates] : *settings.table("attention_of").as_object()) {
    STEELYARD_TRY(read, attention_rates_from(rates, file));
    constants.attention_of.emplace(framework, read);
  }
  for (const auto& [framework, times] : *settings.table("calls_of").as_object()) {
    STEELYARD_TRY(read, call_times_from(times, file));
    constants.calls_of.emplace(framework, read);
  }
  STEELYARD_CHECK(settings.finish());
  return constants;
}

}  // namespace

Result<facts::EfficiencyConstants> efficiency_from(const facts::Value& table,
                                                   const std::filesystem::path& file) {
  // [architecture.NAME] tables hold only what differs; each is completed from the rest.
  facts::Value everywhere{facts::Object{}};
  const facts::Value* architectures = nullptr;
  if (const facts::Object* members = table.as_object()) {
    for (const auto& [key, value] : *members) {
      if (key == "architecture" && value.as_object() != nullptr) {
        architectures = &value;
      } else {
        everywhere.set(key, value);
      }
    }
  }
  STEELYARD_TRY(constants, one_efficiency_from(everywhere, file));
  if (architectures == nullptr) return constants;
  for (const auto& [architecture, changes] : *architectures->as_object()) {
    facts::Value complete = everywhere;
    merge(complete, changes);
    STEELYARD_TRY(here, one_efficiency_from(complete, file));
    here.architecture = architecture;
    constants.by_architecture.push_back(std::move(here));
  }
  return constants;
}

namespace {

void read_decoding(Settings& settings, facts::HostConstants& constants) {
  constants.jpeg_seconds_per_byte = settings.real("jpeg_seconds_per_byte");
  constants.jpeg_seconds_per_pixel = settings.real("jpeg_seconds_per_pixel");
  constants.jpeg_bytes_per_pixel = settings.real("jpeg_bytes_per_pixel");
  constants.image_transform = settings.ratio("image_transform");
  constants.video_seconds_per_frame = settings.real("video_seconds_per_frame");
  constants.video_frames_between_keys = settings.real("video_frames_between_keys");
}

}  // namespace

Result<facts::HostConstants> host_from(const facts::Value& table,
                                       const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::HostConstants constants;
  constants.system = settings.bytes("system");
  constants.process = settings.bytes("process");
  constants.loader_worker = settings.bytes("loader_worker");
  constants.index_per_sample = settings.bytes("index_per_sample");
  constants.largest_checkpoint_shard = settings.bytes("largest_checkpoint_shard");
  constants.shared_memory_segment = settings.bytes("shared_memory_segment");
  constants.shared_memory_channels = settings.whole("shared_memory_channels");
  read_decoding(settings, constants);
  constants.assemble_per_byte = settings.seconds("assemble_per_byte");
  constants.file_read = settings.seconds("file_read");
  constants.thread_copy = settings.rate("thread_copy");
  constants.host_memory_bandwidth = settings.rate("host_memory_bandwidth");
  constants.core_products = FlopsPerSecond(settings.real("core_products_gflop_per_s") * kGiga);
  constants.socket_link = settings.rate("socket_link");
  constants.storage_read = settings.rate("storage_read");
  constants.storage_write = settings.rate("storage_write");
  constants.batch_hand_over = settings.seconds("batch_hand_over");
  constants.batch_wait = settings.seconds("batch_wait");
  constants.pcie_copy = settings.rate("pcie_copy");
  constants.host_link_share = settings.ratio("host_link_share");
  constants.source = settings.text("source");
  STEELYARD_TRY(decode_seconds, numbers_of(settings.table("decode_seconds"), file));
  STEELYARD_TRY(per_byte, numbers_of(settings.table("decode_seconds_per_byte"), file));
  constants.decode_seconds = std::move(decode_seconds);
  constants.decode_seconds_per_byte = std::move(per_byte);
  STEELYARD_TRY(decoding_memory, numbers_of(settings.table("decoding_memory"), file));
  constants.decoding_memory = std::move(decoding_memory);
  STEELYARD_TRY(spread, numbers_of(settings.table("sample_spread"), file));
  constants.sample_spread = std::move(spread);
  STEELYARD_TRY(latency, numbers_of(settings.table("storage_latency_seconds"), file));
  constants.storage_latency = std::move(latency);
  STEELYARD_CHECK(settings.finish());
  return constants;
}

}  // namespace steelyard::catalog
