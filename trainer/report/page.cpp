#include "trainer/report/page.h"

#include "trainer/report/page_style.h"
#include "trainer/report/svg.h"

namespace cosmos::trainer {

std::string page(const std::string& title, const std::string& subtitle, const std::string& body) {
  const std::string name = escape_html(title);
  return "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
         "<meta name='viewport' content='width=device-width, initial-scale=1'><title>" +
         name + "</title><style>" + kPageStyle + "</style></head><body><header><h1>" + name +
         "</h1><p>" + escape_html(subtitle) + "</p></header><main>" + body +
         "</main></body></html>\n";
}

std::string card(const std::string& label, const std::string& value) {
  return "<div class='card'><b>" + escape_html(value) + "</b><span>" + escape_html(label) +
         "</span></div>";
}

std::string base64(const std::string& bytes) {
  static const char* kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (std::size_t k = 0; k < 4; ++k)
      out += i + k <= bytes.size() ? kAlphabet[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string picture(const std::string& png, const std::string& caption) {
  const std::string text = escape_html(caption);
  return "<figure class='picture'><img alt='" + text + "' src='data:image/png;base64," +
         base64(png) + "'><figcaption>" + text + "</figcaption></figure>";
}

std::string fact_table(const std::string& title, const Facts& facts) {
  if (facts.empty()) return "";
  std::string html = "<h2>" + escape_html(title) + "</h2><table class='facts'>";
  for (const auto& [label, value] : facts)
    html += "<tr><th>" + escape_html(label) + "</th><td>" + escape_html(value) + "</td></tr>";
  return html + "</table>";
}

std::string details(const std::string& summary, const std::string& text) {
  return "<details><summary>" + escape_html(summary) + "</summary><pre>" + escape_html(text) +
         "</pre></details>";
}

}  // namespace cosmos::trainer
