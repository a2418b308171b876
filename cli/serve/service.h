// What a server answers: requests of OpenAI's protocol and of Anthropic's, and questions about the server
// itself.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/serve/access.h"
#include "cli/serve/completion_reply.h"
#include "cli/serve/completion_request.h"
#include "cli/serve/http_server.h"
#include "runtime/engine/scheduler.h"
#include "runtime/model.h"

namespace quern {

struct ServiceOptions {
  std::vector<std::string> names;    // of the model; the first is the one that answers say. Not empty
  CompletionOptions defaults;        // of what a request does not say, but for the seed
  std::optional<uint64_t> seed;      // of such a request; none: drawn for each
  Pooling pooling = Pooling::kMean;  // of an embedding that does not say
  AccessOptions access;
};

// Thread-safe. All that it is given outlives it.
class Service {
 public:
  // chat: null: the model has no chat template.
  Service(const Model& model, const ChatEncoding* chat, Scheduler& scheduler, ServiceOptions options);

  HttpResponse handle(const HttpRequest& request, HttpClient& client);
  // The answer to what is no request.
  static HttpResponse refusal(int status, const std::string& message);
  // What `answer` returns, or what it throws as the protocol of the path has it.
  static HttpResponse answer_or_error(std::string_view path, const std::function<HttpResponse()>& answer);
  // Throws ApiError: 404 for a path that is none, 405 for one that takes another method.
  static void require_route(const HttpRequest& request);
  static HttpResponse preflight();  // a browser asks first (CORS)
  // What is answered without a key, since it says nothing of the model, nor of anybody's text: a preflight,
  // the page, /health; nothing: it is another path. Throws what require_route() throws.
  static std::optional<HttpResponse> answer_without_key(const HttpRequest& request);
  // Of the model that is loaded; null: none is.
  static HttpResponse metrics(const SchedulerStats* stats);

 private:
  struct Running;  // answers to one request

  HttpResponse route(const HttpRequest& request, HttpClient& client);
  HttpResponse complete(CompletionKind kind, const HttpRequest& request, HttpClient& client,
                        const std::string& owner);
  CompletionRequest parse(CompletionKind kind, const HttpRequest& request) const;
  RequestContext request_context() const;
  void require_model(const std::string& name) const;
  HttpResponse embeddings(const HttpRequest& request, HttpClient& client, const std::string& owner);
  HttpResponse count_tokens(const HttpRequest& request) const;
  HttpResponse cancel(const HttpRequest& request);
  HttpResponse models(const std::string& name) const;
  HttpResponse tokenize(const HttpRequest& request) const;
  HttpResponse detokenize(const HttpRequest& request) const;
  HttpResponse apply_template(const HttpRequest& request) const;
  HttpResponse props() const;
  HttpResponse slots() const;
  void finish(Running& running);

  const Model& model_;
  const ChatEncoding* chat_;
  Scheduler& scheduler_;
  const ServiceOptions options_;
  const Access access_;
  const int64_t created_;
  // One request is read at a time: a template runs alone, and what a large request takes is taken once.
  mutable std::mutex reading_;
  mutable TokenTries tries_;  // likewise
  std::mutex mutex_;          // of running_
  std::map<std::string, std::shared_ptr<Running>> running_;
};

}  // namespace quern
