#include "tools/curate/http.h"

#include "ops/core/error.h"

#ifdef COSMOS_CURL

#include <curl/curl.h>
#include <memory>
#include <mutex>

namespace cosmos::curate {
namespace {

constexpr std::size_t kLargest = 16 << 20;  // an answer of text; more is no such server's

std::size_t take(char* bytes, std::size_t size, std::size_t count, void* answer) {
  auto& text = static_cast<HttpAnswer*>(answer)->text;
  if (text.size() + size * count > kLargest) return 0;
  text.append(bytes, size * count);
  return size * count;
}

}  // namespace

bool endpoint_available() {
  return true;
}

HttpAnswer post_json(const std::string& url, const std::string& key, const std::string& body,
                     long timeout_s) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 curl_easy_cleanup);
  if (!curl) throw std::bad_alloc();
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  list = curl_slist_append(list, "Expect:");
  if (!key.empty()) list = curl_slist_append(list, ("Authorization: Bearer " + key).c_str());
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(list,
                                                                            curl_slist_free_all);
  HttpAnswer answer;
  char reason[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &answer);
  curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, reason);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT, timeout_s);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);  // there are other threads
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK) return {.code = 0, .text = *reason ? reason : curl_easy_strerror(code)};
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &answer.code);
  return answer;
}

}  // namespace cosmos::curate

#else

namespace cosmos::curate {

bool endpoint_available() {
  return false;
}

HttpAnswer post_json(const std::string& url, const std::string&, const std::string&, long) {
  fail(url, ": this build has no libcurl (package libcurl4-openssl-dev, then configure again)");
}

}  // namespace cosmos::curate

#endif
