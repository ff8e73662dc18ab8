#include "codec/codec.h"
#include "codec/ratio_fields.h"
#include "codec/schema_builder.h"
#include "codec/share.h"
#include "codec/share_fields.h"
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

facts::Value to_value(const facts::MixRatio& ratio) {
  return written(ratio, mix_ratio_fields);
}

facts::Value ratio_schema() {
  return described<facts::MixRatio>(kRatioSchema, mix_ratio_fields);
}

facts::Value to_value(const facts::SharePlan& plan) {
  return written(plan, share_fields);
}

facts::Value share_schema() {
  return described<facts::SharePlan>(kShareSchema, share_fields);
}

}  // namespace steelyard::codec
