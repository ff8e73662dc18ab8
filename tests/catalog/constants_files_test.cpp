#include <fmt/core.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "catalog/catalog.h"
#include "catalog_fixture.h"

namespace steelyard::catalog {
namespace {

using namespace literals;

TEST(Constants, EveryFrameworkLoads) {
  const Catalog catalog = own_catalog();
  for (const auto& entry : std::filesystem::directory_iterator(catalog.folder() / "frameworks")) {
    const std::string framework = entry.path().stem().string();
    SCOPED_TRACE(framework);
    const facts::Constants constants = value_of(catalog.constants(framework));
    EXPECT_EQ(constants.framework.name, framework);
    if (constants.framework.supported) {
      EXPECT_FALSE(constants.framework.sources.empty());
      for (const char* composite : {"rms_norm", "rotary", "key_value_repeat", "loss", "loading"}) {
        EXPECT_TRUE(constants.framework.operators.contains(composite)) << composite;
      }
    } else {
      EXPECT_FALSE(constants.framework.reason.empty());
    }
  }
}

TEST(Constants, TorchtitanChangesWhatItDoesDifferentlyAndKeepsTheRest) {
  const auto profile = value_of(own_catalog().constants("torchtitan")).framework;
  EXPECT_EQ(profile.operators.at("rms_norm"), "upcast");
  EXPECT_EQ(profile.operators.at("rotary"), "complex");
  EXPECT_EQ(profile.operators.at("key_value_repeat"), "repeat");
  EXPECT_FALSE(profile.keeps_logits);
  EXPECT_TRUE(profile.gradients_set_to_none);
  EXPECT_EQ(profile.ddp_bucket, 25_MiB);
}

TEST(Constants, TorchtitanNormalisesByOneKernelInAprilOf2024AndWithTheKernelOfPyTorch29) {
  const auto norm = [](const char* package, const char* version) {
    const facts::Value versions(facts::Object{{package, version}});
    return value_of(own_catalog().constants("torchtitan", versions))
        .framework.operators.at("rms_norm");
  };
  EXPECT_EQ(norm("torchtitan", "2024.03"), "upcast");
  EXPECT_EQ(norm("torchtitan", "2024.04"), "native");
  EXPECT_EQ(norm("torchtitan", "2024.05"), "upcast");
  EXPECT_EQ(norm("torch", "2.8"), "upcast");
  EXPECT_EQ(norm("torch", "2.9"), "native");
  EXPECT_EQ(norm("torchtitan", "2025.08"), "native");
}

TEST(Constants, AttentionOfCudnnIsAnotherBefore9) {
  const auto says = [](const char* version) {
    const facts::Value versions(facts::Object{{"cudnn", version}});
    return value_of(own_catalog().constants("megatron", versions))
        .framework.operators.contains("cudnn_attention");
  };
  EXPECT_TRUE(says("8.9.7"));
  EXPECT_FALSE(says("9.0"));
}

TEST(Constants, KernelsOfPyTorchLoadMoreSince27) {
  const auto says = [](const char* version) {
    const facts::Value versions(facts::Object{{"torch", version}});
    return value_of(own_catalog().constants("pytorch", versions))
        .framework.operators.contains("loads");
  };
  EXPECT_FALSE(says("2.6"));
  EXPECT_TRUE(says("2.7"));
}

TEST(Constants, DeviceMemoryDependsOnTheArchitecture) {
  const auto memory = value_of(own_catalog().constants("pytorch")).device_memory;
  // cuBLAS: 8,519,680 B per handle, 32 MiB on compute capability 9.0.
  EXPECT_EQ(memory.on("ampere").gemm_workspace, 8519680_B);
  EXPECT_EQ(memory.on("").gemm_workspace, 8519680_B);
  EXPECT_EQ(memory.on("hopper").gemm_workspace, 32_MiB);
  EXPECT_EQ(memory.on("blackwell").gemm_workspace, 8519680_B);
  // Transformer Engine: 4 MiB, from compute capability 9.0 on 32 MiB and 1 KiB.
  EXPECT_EQ(memory.on("ampere").engine_workspace, 4_MiB);
  EXPECT_EQ(memory.on("hopper").engine_workspace, 33555456_B);
  // NVLS on 8 x H100: 16 channels x 2 x 1 MiB x 8.
  EXPECT_EQ(memory.on("hopper").nvls, 256_MiB);
  EXPECT_EQ(memory.on("ampere").nvls, 0_B);
  EXPECT_EQ(memory.on("hopper").context, memory.context);
  // (10,485,760 + 2,097,152) x 2 directions.
  EXPECT_EQ(memory.collective_per_channel, 50331648_B);
}

// What connects the GPUs of a node decides what NCCL holds.
TEST(Constants, CollectiveBuffersFollowFromTheLink) {
  const auto memory = value_of(own_catalog().constants("pytorch")).device_memory;
  const auto of = [&](std::optional<double> link, bool peer_access) {
    const auto known = link ? std::optional<BytesPerSecond>(BytesPerSecond(*link)) : std::nullopt;
    return memory.on("hopper").over(known, peer_access).collectives(2);
  };
  // NVLink 4 and what is unknown: 2 x (32 x 48 + 256).
  EXPECT_EQ(of(450e9, true), 3584_MiB);
  EXPECT_EQ(of(std::nullopt, true), 3584_MiB);
  // A bridge: 256 + 2 x 4 channels x (10 + 2) x 2 neighbours.
  EXPECT_EQ(of(56.25e9, false), 448_MiB);
  // PCIe: 256 + 2 x 2 x 24; host shared memory: 256.
  EXPECT_EQ(of(0.0, true), 352_MiB);
  EXPECT_EQ(of(0.0, false), 256_MiB);
  EXPECT_EQ(memory.over(BytesPerSecond(), false).collectives(0), 0_B);
}

TEST(Constants, VoltasSixLinksCarryTwelveChannels) {
  const auto memory = value_of(own_catalog().constants("pytorch")).device_memory;
  // 12 channels of 24 MiB and 256 MiB once; no NVLink SHARP.
  EXPECT_EQ(memory.on("volta").collectives(1), 544_MiB);
  EXPECT_EQ(memory.on("ampere").collectives(1), 1536_MiB);
}

TEST(Constants, EfficienciesAreSharesAndCompleteForEachArchitecture) {
  const auto efficiency = value_of(own_catalog().constants("pytorch")).efficiency;
  EXPECT_FALSE(efficiency.by_architecture.empty());
  for (const char* architecture : {"", "hopper", "ampere", "blackwell"}) {
    SCOPED_TRACE(architecture);
    const facts::EfficiencyConstants& here = efficiency.on(architecture);
    for (const Ratio share : {here.gemm, here.attention_forward, here.attention_backward,
                              here.memory, here.link, here.network, here.host_link}) {
      EXPECT_GT(share.value(), 0.0);
      EXPECT_LE(share.value(), 1.0);
    }
    EXPECT_GT(here.kernel_launch.value(), 0.0);
    EXPECT_LT(here.kernel_launch.value(), 1e-3);
  }
  EXPECT_EQ(efficiency.on("hopper").architecture, "hopper");
}

TEST(Constants, HostCostsAreWhatTheFileSays) {
  const auto host = value_of(own_catalog().constants("pytorch")).host;
  EXPECT_GT(host.process, 1_GiB);
  EXPECT_EQ(host.largest_checkpoint_shard, 5_GB);
  EXPECT_EQ(host.decode_seconds.at("synthetic"), 0.0);
  EXPECT_GT(host.assemble_per_byte.value(), 0.0);
  EXPECT_FALSE(host.source.empty());
}

// A copy of the catalogue in which one file is replaced.
Error error_after(const std::string& file, const std::string& content) {
  const TemporaryFolder folder;
  folder.copy_own_catalog();
  folder.write(file, content);
  return error_of(Catalog::at(folder.path()).constants("litgpt"));
}

// Adding a framework is adding a file.
TEST(Constants, AnotherFrameworkIsAnotherFile) {
  const TemporaryFolder folder;
  folder.copy_own_catalog();
  folder.write("frameworks/mine.toml", "extends = \"torchtitan\"\nddp_bucket_mib = 7\n");
  const auto profile = value_of(Catalog::at(folder.path()).constants("mine")).framework;
  EXPECT_EQ(profile.name, "mine");
  EXPECT_EQ(profile.ddp_bucket, 7_MiB);
  EXPECT_EQ(profile.operators.at("rotary"), "complex");
}

TEST(Constants, AnUnknownFrameworkIsAnErrorWithThoseThatThereAre) {
  const Error error = error_of(own_catalog().constants("pytroch"));
  EXPECT_EQ(error.code, ErrorCode::unknown_name);
  EXPECT_EQ(error.subject, "framework");
  EXPECT_NE(error.accepted.find("litgpt"), std::string::npos) << error.accepted;
  EXPECT_NE(error.hint.find("\"pytorch\""), std::string::npos) << error.hint;
  EXPECT_EQ(error_of(own_catalog().constants("../models/x")).subject, "framework");
}

TEST(Constants, AMissingKeyIsNamedWithItsFile) {
  const Error error = error_after("calibration/device_memory.toml", "nvls_bytes = 0\n");
  EXPECT_EQ(error.subject, "context");
  EXPECT_NE(error.accepted.find("context_mib"), std::string::npos) << error.accepted;
  EXPECT_NE(error.file.find("device_memory.toml"), std::string::npos);
}

TEST(Constants, AnUnknownKeyIsAnErrorWithTheNearest) {
  const Error error =
      error_after("frameworks/litgpt.toml", "extends = \"pytorch\"\nkeep_logits = true\n");
  EXPECT_EQ(error.code, ErrorCode::unknown_name);
  EXPECT_EQ(error.subject, "keep_logits");
  EXPECT_NE(error.hint.find("keeps_logits"), std::string::npos) << error.hint;
}

TEST(Constants, AWrongTypeIsAnError) {
  const Error error = error_after("frameworks/litgpt.toml", "extends = \"pytorch\"\ndropout = 1\n");
  EXPECT_EQ(error.subject, "dropout");
  EXPECT_EQ(error.accepted, "true or false");
}

TEST(Constants, ProfilesThatExtendEachOtherAreAnError) {
  const Error error = error_after("frameworks/litgpt.toml", "extends = \"litgpt\"\n");
  EXPECT_EQ(error.subject, "extends");
}

TEST(Constants, ExtendingAProfileThatIsNotThereNamesItsFile) {
  const Error error = error_after("frameworks/litgpt.toml", "extends = \"pytroch\"\n");
  EXPECT_NE(to_text(error).find("pytroch.toml"), std::string::npos) << to_text(error);
}

TEST(Constants, SharesOfLoadsInFlightAreAbove0AndByCapability) {
  std::ifstream file(own_folder() / "calibration/pace.toml");
  const std::string own((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::string entry = "[loads_in_flight_of]\n\"7.5\" = 0.5\n";
  const std::size_t at = own.find(entry);
  ASSERT_NE(at, std::string::npos);
  for (const char* wrong : {"\"7.5\" = 0.0", "\"75\" = 0.5", "\"7.5\" = 1.5"}) {
    std::string changed = own;
    changed.replace(at, entry.size(), fmt::format("[loads_in_flight_of]\n{}\n", wrong));
    const Error error = error_after("calibration/pace.toml", changed.c_str());
    EXPECT_NE(error.subject.find("loads_in_flight_of"), std::string::npos) << to_text(error);
  }
}

TEST(Constants, BrokenTomlNamesTheFile) {
  const Error error = error_after("calibration/pace.toml", "gemm_ratio = = 1\n");
  EXPECT_NE(to_text(error).find("pace.toml"), std::string::npos) << to_text(error);
}

}  // namespace
}  // namespace steelyard::catalog
