#include "codec/machine_fields.h"
#include "codec/probe.h"
#include "codec/probe_fields.h"
#include "codec/schema_builder.h"
#include "codec/writer.h"

namespace steelyard::codec {

facts::Value to_value(const facts::Probe& probe) {
  facts::Probe copy = probe;
  Writer writer;
  probe_fields(writer, copy);
  return writer.take();
}

facts::Value probe_schema() {
  facts::Probe instance;
  SchemaBuilder builder(SchemaMode::written);
  probe_fields(builder, instance);
  facts::Value described = builder.take();
  facts::Object whole{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                      {"title", kProbeSchema}};
  for (auto& member : *described.as_object()) whole.push_back(std::move(member));
  return whole;
}

}  // namespace steelyard::codec
