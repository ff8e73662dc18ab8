// The JSON Schemas of the program's files, from the same tables of fields that read and write them.
#include "codec/case_fields.h"
#include "codec/codec.h"
#include "codec/job_fields.h"
#include "codec/machine_fields.h"
#include "codec/model_fields.h"
#include "codec/plan_fields.h"
#include "codec/rehearsal_fields.h"
#include "codec/schema_builder.h"
#include "codec/what_if_fields.h"
#include "codec/why_fields.h"

namespace steelyard::codec {
namespace {

template <class T, class Fields>
facts::Value describe(SchemaMode mode, Fields fields) {
  T instance;
  SchemaBuilder builder(mode);
  fields(builder, instance);
  return builder.take();
}

// The head of a schema that stands alone.
facts::Value titled(const char* title, facts::Value schema) {
  facts::Object whole{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                      {"title", title}};
  for (auto& member : *schema.as_object()) whole.push_back(std::move(member));
  return whole;
}

facts::Value& member(facts::Value& in, std::string_view name) {
  for (auto& [key, value] : *in.as_object()) {
    if (key == name) return value;
  }
  return in;
}

// [model], or [[model]]: the policy's table, and those of other roles (model_tables.h).
facts::Value job_schema() {
  facts::Value job = describe<facts::Job>(SchemaMode::file, job_fields);
  facts::Value& model = member(member(job, "properties"), "model");
  facts::Value policy = model;
  facts::Value role = describe<facts::RoleModel>(SchemaMode::file, role_fields);
  member(policy, "properties").set("role", facts::Object{{"const", "policy"}});
  facts::Value description = *model.find("description");
  std::erase_if(*policy.as_object(), [](const auto& m) { return m.first == "description"; });
  facts::Value table(facts::Object{{"anyOf", facts::Array{policy, std::move(role)}}});
  facts::Value tables(facts::Object{{"type", "array"}, {"items", std::move(table)}});
  model = facts::Object{{"anyOf", facts::Array{std::move(policy), std::move(tables)}},
                        {"description", std::move(description)}};
  return job;
}

facts::Value cases_schema() {
  facts::Value schema = describe<WrittenCases>(SchemaMode::file, cases_fields);
  // A case's job is read only when it is planned; its shape is that of a job all the same.
  facts::Value& list = member(member(schema, "properties"), "cases");
  facts::Value& properties = member(member(list, "items"), "properties");
  facts::Value job = job_schema();
  job.set("description", "a job, as in a job file");
  properties.set("job", std::move(job));
  return schema;
}

}  // namespace

facts::Value SchemaBuilder::take() {
  facts::Object schema{{"type", "object"}, {"properties", std::move(properties_)}};
  if (!required_.empty()) schema.emplace_back("required", std::move(required_));
  schema.emplace_back("additionalProperties", false);
  return schema;
}

facts::Value SchemaBuilder::with_origin(facts::Value schema) const {
  if (mode_ != SchemaMode::origins) return schema;
  return facts::Object{{"type", "object"},
                       {"properties", facts::Object{{"value", std::move(schema)},
                                                    {"origin", enum_schema(origin_names())}}},
                       {"required", facts::Array{"value", "origin"}},
                       {"additionalProperties", false}};
}

void SchemaBuilder::add(std::string_view name, facts::Value schema, const Rule& rule) {
  if (rule.about[0] != '\0') schema.set("description", rule.about);
  properties_.emplace_back(std::string(name), std::move(schema));
  if (rule.required || mode_ != SchemaMode::file) required_.emplace_back(std::string(name));
}

facts::Value schema_of_resolved_job() {
  return describe<facts::Job>(SchemaMode::origins, job_fields);
}

facts::Value schema(SchemaOf what) {
  switch (what) {
    case SchemaOf::job: return titled("A job of steelyard", job_schema());
    case SchemaOf::plan:
      return titled(kPlanSchema, describe<facts::Plan>(SchemaMode::written, plan_fields));
    case SchemaOf::machine:
      return titled(kMachineSchema, describe<facts::Machine>(SchemaMode::file, machine_fields));
    case SchemaOf::cases: return titled(kCasesSchema, cases_schema());
    case SchemaOf::why:
      return titled(kWhySchema, describe<facts::VramWhy>(SchemaMode::written, why_fields));
    case SchemaOf::comparison:
      return titled(kComparisonSchema, describe<facts::MachinesCompared>(SchemaMode::written,
                                                                         machines_compared_fields));
    case SchemaOf::search:
      return titled(kSearchSchema,
                    describe<facts::SearchResult>(SchemaMode::written, search_fields));
    case SchemaOf::limits:
      return titled(kLimitsSchema, describe<facts::Limits>(SchemaMode::written, limits_fields));
    case SchemaOf::why_pace:
      return titled(kWhyPaceSchema, describe<facts::PaceWhy>(SchemaMode::written, pace_why_fields));
    case SchemaOf::rehearsal:
      return titled(kRehearsalSchema,
                    describe<facts::Rehearsal>(SchemaMode::written, rehearsal_fields));
    case SchemaOf::model:
      return titled(kModelSchema,
                    describe<facts::ModelTable>(SchemaMode::written, model_table_fields));
  }
  return {};
}

}  // namespace steelyard::codec
