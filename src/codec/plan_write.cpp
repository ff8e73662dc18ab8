// The plan as a tree of values, through the table of fields in plan_fields.h.
#include "codec/model_fields.h"
#include "codec/plan_fields.h"
#include "codec/why_fields.h"
#include "codec/writer.h"

namespace steelyard::codec {

std::optional<bool> certain_fit(const facts::Plan& plan) {
  if (plan.fits_vram == false || plan.fits_ram == false) return false;
  if (plan.fits_vram && plan.fits_ram) return true;
  return std::nullopt;
}

facts::Value to_value(const facts::Plan& plan) {
  facts::Plan copy = plan;
  Writer writer;
  plan_fields(writer, copy);
  return writer.take();
}

facts::Value to_value(const facts::VramWhy& why) {
  facts::VramWhy copy = why;
  Writer writer;
  why_fields(writer, copy);
  return writer.take();
}

facts::Value to_value(const facts::PaceWhy& why) {
  facts::PaceWhy copy = why;
  Writer writer;
  pace_why_fields(writer, copy);
  return writer.take();
}

facts::Value to_value(const facts::ModelTable& table) {
  facts::ModelTable copy = table;
  Writer writer;
  model_table_fields(writer, copy);
  return writer.take();
}

}  // namespace steelyard::codec
