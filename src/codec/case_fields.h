// Every key of a file of measured cases (schema steelyard.cases/1) and of what validation says
// (schema steelyard.validation/1).
#pragma once

#include "codec/rule.h"
#include "facts/cases.h"

namespace steelyard::codec {

inline constexpr const char* kCasesSchema = "steelyard.cases/1";
inline constexpr const char* kNotesSchema = "steelyard.notes/1";
inline constexpr const char* kValidationSchema = "steelyard.validation/1";

// Where the cases of a file, or one case, come from.
struct CaseSource {
  std::string title, where, url, commit;
};

// One case as it stands in the file. `quote` and its own `source` are read and not kept.
struct WrittenCase {
  facts::Case kept;
  std::optional<std::string> quote;
  std::optional<CaseSource> source;
};

struct WrittenNotes {
  std::vector<facts::CaseNote> notes;
};

struct WrittenCases {
  CaseSource source;
  std::vector<WrittenCase> cases;
};

inline constexpr auto measured_fields = [](auto& v, auto& m) {
  constexpr Rule kSize = between(0, kMostBytes, "bytes");
  constexpr Rule kPositive = between(kLeastRate, kMostRate, "");
  v.key("vram_peak_allocated", m.vram_peak_allocated, kSize);
  v.key("vram_peak_reserved", m.vram_peak_reserved, kSize);
  v.key("vram_peak_device_used", m.vram_peak_device_used, kSize);
  v.key("vram_steady_allocated", m.vram_steady_allocated, kSize);
  v.key("vram_low", m.vram_low, kSize);
  v.key("vram_high", m.vram_high, kSize);
  v.key("vram_meter", m.vram_meter, about("which counter vram_low and vram_high are of"));
  v.key("vram_rank", m.vram_rank, about("last_stage: the figure is of that rank"));
  v.key("ram_peak", m.ram_peak, kSize);
  v.key("ram_process_peak", m.ram_process_peak, kSize);
  v.key("ram_low", m.ram_low, kSize);
  v.key("ram_high", m.ram_high, kSize);
  v.key("ram_scope", m.ram_scope, about("of what ram_low and ram_high are"));
  v.key("ram_phase", m.ram_phase, about("when it was read"));
  v.key("step_seconds", m.step_seconds, between(kLeastRate, kMostSeconds, "one optimizer step"));
  v.key("tokens_per_second_per_gpu", m.tokens_per_second_per_gpu, kPositive);
  v.key("samples_per_second", m.samples_per_second, kPositive);
  v.key("loader_samples_per_second", m.loader_samples_per_second, kPositive);
  v.key("tflops_per_gpu", m.tflops_per_gpu, between(0, kMostFlopsPerSecond, "10^12 per second"));
  v.key("hfu_tflops_per_gpu", m.hfu_tflops_per_gpu,
        between(0, kMostFlopsPerSecond, "10^12 per second, recomputation counted"));
  v.key("mfu", m.mfu, between(0, 2, "model FLOP utilization"));
  v.key("hfu", m.hfu, between(0, 2, "hardware FLOP utilization"));
  v.key("flops_convention", m.flops_convention, about("what a printed TFLOP/s counted"));
  v.key("fits", m.fits, about("the job ran"));
  v.key("fits_ram", m.fits_ram, about("host memory was enough"));
};

inline constexpr auto source_fields = [](auto& v, auto& s) {
  v.key("title", s.title, about("of the publication"));
  v.key("where", s.where, about("repository, page or table"));
  v.key("url", s.url, about("address"));
  v.key("commit", s.commit, about("revision"));
};

inline constexpr auto case_fields = [](auto& v, auto& c) {
  v.key("id", c.kept.id, required(about("unique name of the case")));
  v.key("quote", c.quote, about("the row as printed"));
  v.key("job", c.kept.job, required(about("a job, as in a job file")));
  v.table("measured", c.kept.measured, measured_fields, required(about("what the source saw")));
  v.key("confidence", c.kept.confidence, about("high, medium or low"));
  v.key("assumptions", c.kept.assumptions, about("what the source does not say"));
  v.optional_table("source", c.source, source_fields, about("when not the file's"));
};

inline constexpr auto cases_fields = [](auto& v, auto& file) {
  v.constant("schema", kCasesSchema);
  v.table("source", file.source, source_fields, required(about("where the cases come from")));
  v.list("cases", file.cases, case_fields, required(about("the measured cases")));
};

inline constexpr auto comparison_fields = [](auto& v, auto& c) {
  v.key("id", c.id, about("of the case"));
  v.key("source", c.source, about("stem of its file"));
  v.key("confidence", c.confidence, about("high, medium or low"));
  v.key("quantity", c.quantity, about("key of `measured`"));
  v.key("group", c.group, about("vram, ram or pace"));
  v.key("measured", c.measured, about("in the quantity's base unit"));
  v.key("predicted", c.predicted, about("in the quantity's base unit"));
  v.key("error", c.error, about("predicted / measured - 1"));
  v.key("impossible", c.impossible, about("why the printed figure cannot be; empty: it can"));
};

inline constexpr auto unsupported_fields = [](auto& v, auto& u) {
  v.key("id", u.id, about("of the case"));
  v.key("source", u.source, about("stem of its file"));
  v.key("reason", u.reason, about("why it cannot be planned"));
};

inline constexpr auto error_figures = [](auto& v, auto& s) {
  v.key("cases", s.cases, about("number of cases"));
  v.key("median_absolute_error", s.median_absolute_error, about("ratio"));
  v.key("p90_absolute_error", s.p90_absolute_error, about("ratio"));
  v.key("bias", s.bias, about("mean error, ratio"));
};

inline constexpr auto summary_fields = [](auto& v, auto& s) {
  v.key("source", s.source, about("stem of the file"));
  v.key("group", s.group, about("vram, ram or pace"));
  v.key("confidence", s.confidence, about("high, medium or low"));
  error_figures(v, s);
};

inline constexpr auto overall_fields = [](auto& v, auto& s) {
  v.key("group", s.group, about("vram, ram or pace"));
  error_figures(v, s);
};

inline constexpr auto fits_fields = [](auto& v, auto& f) {
  v.key("true_positive", f.true_positive, about("fits, and was predicted to"));
  v.key("true_negative", f.true_negative, about("does not fit, and was predicted not to"));
  v.key("false_positive", f.false_positive, about("does not fit, but was predicted to"));
  v.key("false_negative", f.false_negative, about("fits, but was predicted not to"));
};

inline constexpr auto verdict_fields = [](auto& v, auto& w) {
  v.key("id", w.id, about("of the case"));
  v.key("source", w.source, about("stem of its file"));
  v.key("confidence", w.confidence, about("high, medium or low"));
  v.key("quantity", w.quantity, about("fits or fits_ram"));
  v.key("measured", w.measured, about("what was seen; the plan says the opposite"));
  v.key("filled", w.filled, about("planned use of the memory that is fuller, ratio"));
};

inline constexpr auto note_fields = [](auto& v, auto& n) {
  v.key("cases", n.cases, required(about("ids; * stands for any characters")));
  v.key("quantities", n.quantities, about("names, with stars as well; none: all"));
  v.key("reason", n.reason, required(about("why the prediction is far off")));
};

inline constexpr auto notes_fields = [](auto& v, auto& file) {
  v.constant("schema", kNotesSchema);
  v.list("notes", file.notes, note_fields, about("one per reason"));
};

inline constexpr auto outside_fields = [](auto& v, auto& o) {
  v.key("group", o.group, about("vram, ram or pace"));
  v.key("reason", o.reason, about("empty: none found yet"));
  v.key("figures", o.figures, about("beyond the group's bound"));
  v.key("worst", o.worst, about("error, ratio"));
  v.key("cases", o.cases, about("ids"));
};

inline constexpr auto validation_fields = [](auto& v, auto& all) {
  v.constant("schema", kValidationSchema);
  v.list("cases", all.cases, comparison_fields, about("one per case and quantity"));
  v.list("unsupported", all.unsupported, unsupported_fields, about("cases without a plan"));
  v.list("summary", all.summary, summary_fields, about("by source, group and confidence"));
  v.list("overall", all.overall, overall_fields, about("by group"));
  v.table("fits", all.fits, fits_fields, about("the verdict as a confusion matrix"));
  v.list("verdicts", all.verdicts, verdict_fields, about("verdicts that are wrong"));
  v.list("outside", all.outside, outside_fields, about("figures beyond their bound, by reason"));
};

}  // namespace steelyard::codec
