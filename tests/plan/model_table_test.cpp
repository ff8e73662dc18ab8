// The table of a model agrees with its graph and with what its program keeps.
#include <string>
#include <vector>

#include "model/model.h"
#include "plan/plan.h"
#include "plan/planning.h"

namespace steelyard::plan {
namespace {

facts::ModelTable table_of(const char* model, facts::Job job = job_on_cards("h100-sxm-80gb", 1)) {
  job.model.config = std::string(model);
  return value_of(model_table(request_for(job)));
}

TEST(ModelTable, PartsAddUpToTheModel) {
  for (const char* model :
       {"gpt2", "llama-3.2-1b", "gemma-2-2b", "mixtral-8x7b", "bert-base-uncased", "resnet-50",
        "vit-base-patch16-224", "stable-diffusion-v1-5"}) {
    SCOPED_TRACE(model);
    const facts::ModelTable table = table_of(model);
    Parameters all;
    Flops forward;
    Bytes saved;
    for (const facts::ModelPart& part : table.parts) {
      Parameters of_part;
      Flops part_forward;
      Bytes part_saved;
      for (const facts::ModelOperator& op : part.operators) {
        EXPECT_FALSE(op.kind.empty());
        of_part += op.parameters;
        part_forward += op.forward_flops;
        part_saved += op.saved;
      }
      EXPECT_EQ(of_part, part.parameters) << part.name;
      EXPECT_DOUBLE_EQ(part_forward.value(), part.forward_flops.value());
      EXPECT_EQ(part_saved, part.saved) << part.name;
      all += part.parameters * part.layers;
      forward += part.forward_flops * static_cast<double>(part.layers);
      saved += part.saved * part.layers;
    }
    EXPECT_EQ(all, table.parameters);
    EXPECT_NEAR(forward.value() / table.forward_flops.value(), 1.0, 1e-12);
    EXPECT_EQ(saved, table.saved);
    EXPECT_GT(saved, Bytes(0));
    Parameters held;
    for (const facts::HeldParameters& row : table.held) held += row.parameters;
    EXPECT_EQ(held, table.parameters);
  }
}

// Adapters are rows of their own; packed bytes are no parameters.
TEST(ModelTable, OfAQuantizedBaseAndItsAdapters) {
  facts::Job job = job_on_cards("h100-sxm-80gb", 1);
  job.train.method = facts::Method::qlora;
  job.train.base_quantization = facts::BaseQuantization::nf4;
  job.train.lora.rank = 8;
  job.train.lora.targets = {"q_proj"};
  const facts::ModelTable table = table_of("llama-2-7b", job);
  Parameters adapters, packed;
  for (const facts::ModelPart& part : table.parts) {
    for (const facts::ModelOperator& op : part.operators) {
      if (op.kind == "adapter") adapters += op.parameters * part.layers;
    }
  }
  for (const facts::HeldParameters& row : table.held) {
    if (row.dtype == "nf4") packed += row.parameters;
  }
  EXPECT_EQ(adapters, Parameters(32 * 8 * (4096 + 4096)));
  EXPECT_EQ(adapters, table.trainable);
  EXPECT_EQ(packed, Parameters(6'738'415'616 - 2 * 32000 * 4096 - (2 * 32 + 1) * 4096));
}

// A linear layer keeps nothing of its own but its result, which the ReLU behind it reads in place
// of its input: with fp32 weights and no autocast no copy of a weight is there either.
TEST(ModelTable, SavedBytesAreThoseThatTheForwardPassLeaves) {
  facts::Job job = job_on_cards("h100-sxm-80gb", 1);
  job.train.precision = facts::Precision::fp32;
  job.train.micro_batch = 2;
  job.train.sequence_length = 128;
  job.train.attention = facts::Attention::efficient;
  const facts::ModelTable table = table_of("gpt2", job);
  for (const facts::ModelPart& part : table.parts) {
    for (const facts::ModelOperator& op : part.operators) {
      // 2 samples x 128 tokens x 3072 values x 4 bytes: what gelu_new reads.
      if (op.name != "mlp.c_fc") continue;
      EXPECT_EQ(op.saved, Bytes(2 * 128 * 3072 * 4));
    }
  }
}

TEST(ModelTable, TypesAndTrainingFollowTheJob) {
  facts::Job job = job_on_cards("h100-sxm-80gb", 1);
  job.train.precision = facts::Precision::bf16;
  const facts::ModelTable table = table_of("gpt2", job);
  ASSERT_EQ(table.held.size(), 1U);
  EXPECT_EQ(table.held[0].dtype, "bf16");
  EXPECT_EQ(table.held[0].bytes, Bytes(2 * 124'439'808));
  EXPECT_EQ(table.trainable, table.parameters);
}

}  // namespace
}  // namespace steelyard::plan
