// The first header of the room: facts -> text. Computes no new number.
#pragma once

#include <functional>
#include <string>

#include "facts/cases.h"
#include "facts/model_table.h"
#include "facts/pace_why.h"
#include "facts/plan.h"
#include "facts/what_if.h"

namespace steelyard::facts {
struct Rehearsal;
}

namespace steelyard::report {

struct Style {
  int columns = 100;
  bool colour = false;  // never the only carrier of meaning
  bool ascii = false;   // plain ASCII instead of box-drawing characters and bars
};

// One screen: fits or not; VRAM and RAM as bars with their categories; the ratio on the steelyard;
// the step with what it waits for; advice.
[[nodiscard]] std::string plan_text(const facts::Plan& plan, const Style& style);

// What fills a GPU at its peak: the bar of categories, then the largest groups of tensors with
// their shape, where they are made and where they are let go; at most `most` groups.
[[nodiscard]] std::string why_text(const facts::VramWhy& why, const Style& style,
                                   std::size_t most = 20);

// Where a host's memory goes, phase by phase with the rules that were used; the data path stage by
// stage, in the first epoch and after it, with what limits it.
[[nodiscard]] std::string why_ram_text(const facts::Plan& plan, const Style& style);
[[nodiscard]] std::string why_feed_text(const facts::Plan& plan, const Style& style);

// One job on several machines, a line for each: what fits, how fast, at what price. How far each of
// a job's sizes can go and what breaks behind it.
[[nodiscard]] std::string comparison_text(const facts::MachinesCompared& machines,
                                          const Style& style);
// The best layout of each machine and number of nodes, what is on the front, and why others lost.
[[nodiscard]] std::string search_text(const facts::SearchResult& result, const Style& style);
[[nodiscard]] std::string limits_text(const facts::Limits& limits, const Style& style);
// Where the time of a step goes: the bar of the plan, then operator by operator what runs, what
// limits it and what the step is longer for, at most `most` rows; what would help. As a trace for
// Chrome's and Perfetto's viewers (JSON): the spans of the track "GPU" sum to the step.
[[nodiscard]] std::string why_pace_text(const facts::PaceWhy& why, const Style& style,
                                        std::size_t most = 20);
[[nodiscard]] std::string pace_trace(const facts::PaceWhy& why);

// Live bytes over a step, by category and moment, of every kind of rank (VramPlan::timelines): one
// HTML page that needs no network; a trace for Chrome's and Perfetto's viewers (JSON).
[[nodiscard]] std::string timeline_page(const facts::Plan& plan);
[[nodiscard]] std::string timeline_trace(const facts::Plan& plan);

// The table of `steelyard validate`: per source and quantity, the worst cases, fits as a confusion
// matrix, what is not supported and why.
[[nodiscard]] std::string validation_text(const facts::Validation& validation, const Style& style);
// The same as Markdown, for docs/validation.md.
[[nodiscard]] std::string validation_markdown(const facts::Validation& validation);

// A model operator by operator; its modules as a tree with the parameters below each; two models
// side by side with the keys of their configurations that differ (`write`: a value as text).
[[nodiscard]] std::string model_text(const facts::ModelTable& model, const Style& style);
[[nodiscard]] std::string model_tree_text(const facts::ModelTable& model, const Style& style);
[[nodiscard]] std::string models_compared(
    const facts::ModelTable& a, const facts::ModelTable& b, const Style& style,
    const std::function<std::string(const facts::Value&)>& write);

// What a rehearsal of the data path measured, the plan's prediction beside it where there is one.
[[nodiscard]] std::string rehearsal_text(const facts::Rehearsal& rehearsal, const Style& style);

[[nodiscard]] std::string gpu_text(const facts::Gpu& gpu, const Style& style);
[[nodiscard]] std::string machine_text(const facts::Machine& machine, const Style& style);

}  // namespace steelyard::report
