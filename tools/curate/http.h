#pragma once

// One HTTP request.

#include <string>

namespace cosmos::curate {

/// Whether this build has libcurl.
bool endpoint_available();

struct HttpAnswer {
  long code = 0;       ///< 0: there was no answer
  std::string text{};  ///< the body, or why there is none
};

/// POSTs JSON; `key` empty: no Authorization. Follows no redirect. Any thread may call it.
HttpAnswer post_json(const std::string& url, const std::string& key, const std::string& body,
                     long timeout_s);

}  // namespace cosmos::curate
