#include "report/measured_section.h"
#include "report/page.h"
#include "report/plan_sections.h"
#include "report/report.h"

namespace steelyard::report {

std::string plan_text(const facts::Plan& plan, const Style& style) {
  const Paint paint(style);
  Page page(paint);
  for (const std::string& line : title_lines(plan, paint)) page.line(line);
  page.blank();
  for (const std::string& line : verdict_lines(plan, paint)) page.line(line);
  page.blank();
  page.section("VRAM", vram_lines(plan, page.width(), paint));
  page.blank();
  page.section("RAM", ram_lines(plan, page.width(), paint));
  page.blank();
  page.section("Balance", balance_lines(plan, page.width(), paint));
  page.blank();
  page.section("Step", step_lines(plan, page.width(), paint));
  page.section("Data", data_lines(plan, page.width(), paint));
  page.section("NUMA", numa_lines(plan, page.width(), paint));
  page.section("Probed", measured_lines(plan, page.width(), paint));
  page.section("Trust", confidence_lines(plan, page.width(), paint));
  page.blank();
  page.section("Advice", advice_lines(plan, page.width(), paint));
  page.section("Note", note_lines(plan, page.width(), paint));
  return page.text();
}

}  // namespace steelyard::report
