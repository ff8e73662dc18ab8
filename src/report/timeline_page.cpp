// The moments drawn: one HTML file that needs nothing beside it.
#include <fmt/format.h>

#include "report/report.h"
#include "report/timeline_data.h"
#include "report/timeline_script.h"

namespace steelyard::report {
namespace {

std::string escaped(std::string_view text) {
  std::string html;
  for (const char c : text) {
    switch (c) {
      case '&': html += "&amp;"; break;
      case '<': html += "&lt;"; break;
      case '>': html += "&gt;"; break;
      case '"': html += "&quot;"; break;
      default: html += c;
    }
  }
  return html;
}

constexpr const char* kBody = R"html(
<p id="say">
<noscript>This page is drawn by its own script: please allow it.</noscript></p>
<p><label>Rank <select id="rank"></select></label>
<button id="to-peak" type="button">Go to the peak</button>
<span class="quiet">Point at the chart, or focus it and use the arrow keys; P is the peak.</span>
</p>
<div class="row">
<div id="chart"><svg id="svg" viewBox="0 0 1000 420" tabindex="0"
 role="slider" aria-label="Moment of the step" aria-valuemin="1" aria-valuenow="1"></svg></div>
<div id="side"><div id="where" aria-live="polite"></div>
<table><tbody id="rows"></tbody><tfoot><tr><td>in all</td><td id="sum"></td><td></td></tr></tfoot>
</table></div></div>
<p class="quiet">One moment per layer and phase: the fullest inside of it. Micro-batches that repeat
what an earlier one did to the byte are drawn once. "allocator" is what PyTorch has reserved and not
handed out; "runtime" is the CUDA context and libraries.</p>
)html";

}  // namespace

std::string timeline_page(const facts::Plan& plan) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}: GPU memory over a step</title>\n<style>{1}</style>\n</head>\n<body>\n"
      "<h1>{0}: GPU memory over a step</h1>{2}"
      "<script type=\"application/json\" id=\"data\">{3}</script>\n"
      "<script>{4}</script>\n</body>\n</html>\n",
      escaped(plan.job.name), kTimelineStyle, kBody, timeline_data(plan), kTimelineScript);
}

}  // namespace steelyard::report
