// Every model of the catalogue is one that a job can name.
#include <gtest/gtest.h>

#include "model/model.h"
#include "plan/planning.h"

namespace steelyard::plan {
namespace {

TEST(EveryModel, canBeNamedByAJobAndIsBuilt) {
  const auto entries = value_of(own_catalog().list(catalog::Kind::models));
  EXPECT_GT(entries.size(), 100u);
  for (const catalog::Entry& entry : entries) {
    SCOPED_TRACE(entry.id);
    facts::Job job;
    job.model.config = entry.id;
    const auto source = own_catalog().model_of(job, {});
    ASSERT_TRUE(source) << to_text(source.error());
    const auto graph = model::build(*source, model::SampleShape{1, 0});
    EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  }
}

}  // namespace
}  // namespace steelyard::plan
