#include "codec/rehearsal.h"

#include "codec/rehearsal_fields.h"
#include "codec/schema_builder.h"
#include "codec/writer.h"

namespace steelyard::codec {

facts::Value to_value(const facts::Rehearsal& rehearsal) {
  facts::Rehearsal copy = rehearsal;
  Writer writer;
  rehearsal_fields(writer, copy);
  return writer.take();
}

facts::Value rehearsal_schema() {
  facts::Rehearsal instance;
  SchemaBuilder builder(SchemaMode::written);
  rehearsal_fields(builder, instance);
  facts::Value described = builder.take();
  facts::Object whole{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                      {"title", kRehearsalSchema}};
  for (auto& member : *described.as_object()) whole.push_back(std::move(member));
  return whole;
}

}  // namespace steelyard::codec
