#include "codec/what_if_fields.h"
#include "codec/writer.h"

namespace steelyard::codec {

facts::Value to_value(const facts::MachinesCompared& comparison) {
  facts::MachinesCompared copy = comparison;
  Writer writer;
  machines_compared_fields(writer, copy);
  return writer.take();
}

facts::Value to_value(const facts::Limits& limits) {
  facts::Limits copy = limits;
  Writer writer;
  limits_fields(writer, copy);
  return writer.take();
}

facts::Value to_value(const facts::SearchResult& result) {
  facts::SearchResult copy = result;
  Writer writer;
  search_fields(writer, copy);
  return writer.take();
}

}  // namespace steelyard::codec
