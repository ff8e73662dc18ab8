// train.allocator: PYTORCH_CUDA_ALLOC_CONF as it is exported in job scripts.
#include <gtest/gtest.h>

#include "codec/leaf.h"

namespace steelyard::codec {
namespace {

using facts::AllocatorConf;

AllocatorConf good(const std::string& text) {
  const auto read = Leaf<AllocatorConf>::read(facts::Value(text), {});
  EXPECT_TRUE(read) << text << ": " << to_text(read.error());
  return read ? *read : AllocatorConf{};
}

Error bad(const std::string& text) {
  const auto read = Leaf<AllocatorConf>::read(facts::Value(text), {});
  EXPECT_FALSE(read) << text;
  return read ? Error{} : read.error();
}

TEST(AllocatorConf, ReadsWhatTrainingScriptsExport) {
  EXPECT_TRUE(good("expandable_segments:True").expandable_segments);
  EXPECT_FALSE(good("expandable_segments:False").expandable_segments);
  EXPECT_EQ(good("max_split_size_mb:128").max_split_size, Bytes(std::int64_t{128} << 20));
  EXPECT_EQ(good("roundup_power2_divisions:4").roundup_power2_divisions, 4);
  EXPECT_EQ(good("").text, "");
  const AllocatorConf both = good(" max_split_size_mb:512, expandable_segments:True ");
  EXPECT_TRUE(both.expandable_segments);
  EXPECT_EQ(both.max_split_size, Bytes(std::int64_t{512} << 20));
}

// CUDAAllocatorConfig.cpp: the first interval's figure holds below it too, ">" for the rest.
TEST(AllocatorConf, ReadsDivisionsByInterval) {
  const AllocatorConf conf =
      good("expandable_segments:True,roundup_power2_divisions:[32:256,64:128,256:64,>:32]");
  EXPECT_TRUE(conf.expandable_segments);
  const std::array<std::int64_t, 16> wanted = {256, 256, 256, 256, 256, 256, 128, 0,
                                               32,  32,  32,  32,  32,  32,  32,  32};
  EXPECT_EQ(conf.roundup_by_interval, wanted);
}

TEST(AllocatorConf, WhatMovesNoBlockIsReadAndChangesNothing) {
  const AllocatorConf conf =
      good("backend:native,garbage_collection_threshold:0.8,pinned_use_cuda_host_register:True");
  EXPECT_FALSE(conf.expandable_segments);
  EXPECT_EQ(conf.roundup_power2_divisions, 0);
  EXPECT_EQ(conf.max_split_size, std::nullopt);
}

TEST(AllocatorConf, RefusesWhatPyTorchRefuses) {
  EXPECT_EQ(bad("expandable_segment:True").hint, "did you mean \"expandable_segments\"?");
  EXPECT_EQ(bad("expandable_segments:true").accepted, "for expandable_segments True or False");
  EXPECT_NE(bad("max_split_size_mb:20").accepted.find("above 20"), std::string::npos);
  EXPECT_NE(bad("roundup_power2_divisions:3").accepted.find("power of two"), std::string::npos);
  EXPECT_NE(bad("roundup_power2_divisions:[3:1]").accepted.find("list"), std::string::npos);
  EXPECT_NE(bad("backend:cudaMallocAsync").hint.find("not modelled"), std::string::npos);
  EXPECT_NE(bad("roundup_power2_divisions:[").accepted, "");
  EXPECT_NE(bad("max_split_size_mb:99999999999999999999").accepted, "");
}

}  // namespace
}  // namespace steelyard::codec
