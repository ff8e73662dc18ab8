#include "facts/enums.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "facts/cases.h"
#include "facts/plan.h"

namespace steelyard::facts {
namespace {

// Every name leads back to its enumerator and no two are the same. `last` is the last enumerator: a
// name too few or too many for the enumeration shows here.
template <class Enum>
void check_names(Enum last) {
  const auto& names = EnumNames<Enum>::values;
  EXPECT_EQ(names.size(), static_cast<std::size_t>(last) + 1) << names.back();
  std::set<std::string> seen;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto enumerator = static_cast<Enum>(i);
    EXPECT_FALSE(names[i].empty());
    EXPECT_TRUE(seen.insert(std::string(names[i])).second) << names[i] << " twice";
    EXPECT_EQ(from_name<Enum>(names[i]), enumerator);
    EXPECT_EQ(name_of(enumerator), names[i]);
  }
  EXPECT_EQ(from_name<Enum>("no such name"), std::nullopt);
  EXPECT_EQ(from_name<Enum>(""), std::nullopt);
}

TEST(EnumNames, OfTheJobAreCompleteAndUnique) {
  check_names(Method::qlora);
  check_names(BaseQuantization::gptq_int4);
  check_names(Precision::nvfp4_mixed);
  check_names(OptimizerName::sgd_momentum);
  check_names(RecomputeMode::full);
  check_names(RecomputeMethod::block);
  check_names(Attention::sdpa_math);
  check_names(Loss::fused);
  check_names(FusedKernel::moe);
  check_names(MemoryFormat::channels_last);
  check_names(Fp8Recipe::blockwise);
  check_names(Schedule::dualpipe);
  check_names(Sharding::shard_grad_op);
  check_names(ShortPrecision::fp16);
  check_names(EmbeddingPlacement::column_wise);
  check_names(OffloadTo::nvme);
  check_names(EmbeddingOffload::uvm_caching);
  check_names(DataKind::synthetic);
  check_names(DataLayout::parquet);
  check_names(Shuffle::none);
  check_names(DecodeOn::gpu);
  check_names(DataCache::ram_encoded);
  check_names(CheckpointMethod::sharded_async);
  check_names(CheckpointLoad::meta);
  check_names(CompanionHeld::cpu);
}

TEST(EnumNames, OfThePlanAndTheCasesAreCompleteAndUnique) {
  check_names(VramCategory::runtime);
  check_names(RamCategory::communication);
  check_names(RamPhase::checkpoint);
  check_names(BalanceVerdict::starved_by_link);
  check_names(Tier::large);
  check_names(VramMeter::unknown);
  check_names(FlopsConvention::unstated);
  check_names(RamScope::job);
  check_names(CaseRamPhase::checkpoint);
  check_names(QuantityGroup::feed);
}

// The words of the contract whose spelling differs from the enumerator's.
TEST(EnumNames, SpellTheContract) {
  EXPECT_EQ(name_of(Schedule::one_f_one_b), "1f1b");
  EXPECT_EQ(name_of(Precision::bf16_mixed), "bf16-mixed");
  EXPECT_EQ(name_of(OptimizerName::adamw_fp8), "adamw-fp8");
  EXPECT_EQ(name_of(Sharding::shard_grad_op), "shard-grad-op");
  EXPECT_EQ(name_of(MemoryFormat::channels_last), "channels_last");
  EXPECT_EQ(name_of(FlopsConvention::six_n_causal_attention), "6n+causal-attention");
  EXPECT_EQ(name_of(BaseQuantization::nf4_dq), "nf4-dq");
}

TEST(BytesBy, SumsItsCategories) {
  VramBytes bytes;
  bytes[VramCategory::parameters] = Bytes(100);
  bytes[VramCategory::runtime] = Bytes(23);
  EXPECT_EQ(bytes.total(), Bytes(123));
  EXPECT_EQ(bytes[VramCategory::gradients], Bytes(0));
}

}  // namespace
}  // namespace steelyard::facts
