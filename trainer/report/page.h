#pragma once

// What the reports' pages are made of. Texts are plain: they are escaped here.

#include <string>
#include <utility>
#include <vector>

namespace cosmos::trainer {

/// Rows of a page's fact table: ("parameters", "1.23 M").
using Facts = std::vector<std::pair<std::string, std::string>>;

/// A whole page that needs no other file; `body` is HTML.
std::string page(const std::string& title, const std::string& subtitle, const std::string& body);

/// A number that stands out; a row of them goes into <div class='cards'>.
std::string card(const std::string& label, const std::string& value);
/// RFC 4648, with padding.
std::string base64(const std::string& bytes);
/// A PNG with what is written below; several go into <div class='pictures'>.
std::string picture(const std::string& png, const std::string& caption);
/// Empty without facts.
std::string fact_table(const std::string& title, const Facts& facts);
/// Text that is folded away.
std::string details(const std::string& summary, const std::string& text);

}  // namespace cosmos::trainer
