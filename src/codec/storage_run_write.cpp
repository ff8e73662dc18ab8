#include "codec/schema_builder.h"
#include "codec/storage_run.h"
#include "codec/storage_run_fields.h"
#include "codec/writer.h"

namespace steelyard::codec {
namespace {

template <class T, class Fields>
facts::Value written(T copy, Fields fields) {
  Writer writer;
  fields(writer, copy);
  return writer.take();
}

template <class T, class Fields>
facts::Value described(const char* title, Fields fields) {
  T instance;
  SchemaBuilder builder(SchemaMode::written);
  fields(builder, instance);
  facts::Object whole{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                      {"title", title}};
  facts::Value body = builder.take();
  for (auto& member : *body.as_object()) whole.push_back(std::move(member));
  return whole;
}

}  // namespace

facts::Value to_value(const facts::GeneratedRun& run) {
  return written(run, generated_fields);
}

facts::Value generated_schema() {
  return described<facts::GeneratedRun>(kGeneratedSchema, generated_fields);
}

facts::Value to_value(const facts::CheckpointRun& run) {
  return written(run, checkpoint_run_fields);
}

facts::Value checkpoint_run_schema() {
  return described<facts::CheckpointRun>(kCheckpointRunSchema, checkpoint_run_fields);
}

}  // namespace steelyard::codec
