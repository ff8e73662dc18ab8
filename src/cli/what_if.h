// What the commands that plan a job many times share.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/planning.h"
#include "search/search.h"
#include "step/workshop.h"

namespace steelyard::cli {

// A job as it is read, what it is planned from, and its plan.
struct Base {
  ReadJob read;
  catalog::Catalog catalog;
  plan::Request request;
  facts::Plan planned;
  std::shared_ptr<step::Workshop> workshop;  // of all plans and bounds that come from it
};
[[nodiscard]] Result<Base> base_of(const Session& session, const JobWords& words);

// Plans a changed job from the same folder; valid as long as the base is.
[[nodiscard]] search::Planner planner_of(const Base& base);

// The same for a search, whose jobs differ in their machine and layout alone: what the catalogue
// says of a machine is looked up once.
struct LayoutPlanner {
  search::Planner one;
  search::Siblings siblings;
};
[[nodiscard]] LayoutPlanner layout_planner_of(const Base& base);

// Bounds of layouts of the base's job on the machine that a job names.
[[nodiscard]] std::function<search::Bounds(const facts::Job& place)> bounds_of(const Base& base);

// A machine of the catalogue or of a file; or a bare GPU of that id.
[[nodiscard]] Result<facts::Machine> machine_named(const Base& base, const std::string& name);

}  // namespace steelyard::cli
