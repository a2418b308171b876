#include "cli/serve/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "cli/serve/answer_mailbox.h"
#include "cli/serve/embeddings.h"
#include "cli/serve/messages_reply.h"
#include "cli/serve/messages_request.h"
#include "cli/serve/page.h"
#include "cli/serve/request_fields.h"
#include "cli/serve/responses_reply.h"
#include "cli/serve/responses_request.h"
#include "quant/json/json_writer.h"
#include "quant/machine/random.h"

namespace quern {
namespace {

constexpr auto kHeartbeat = std::chrono::seconds(5);  // of a stream that has nothing to say
constexpr size_t kMaxIgnoredBytes = 512;              // of names in a header

HttpResponse json_response(std::string body, int status = 200) {
  return {status, "application/json", {}, std::move(body)};
}

constexpr std::string_view kMessages = "/v1/messages", kCountTokens = "/v1/messages/count_tokens";
constexpr std::string_view kModelPath = "/v1/models/";

// As the protocol of the path has it.
HttpResponse error_response(const ApiError& error, std::string_view path) {
  HttpResponse response =
      json_response(path == kMessages || path == kCountTokens
                        ? messages_error_json(error.status(), error.what())
                        : error_json(error.type(), error.what(), error.param(), error.code()),
                    error.status());
  if (error.status() == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.status() == 429 || error.status() == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

// Nobody guesses it.
std::string random_id(std::string_view prefix) {
  return fmt::format("{}{:016x}{:016x}", prefix, random_value<uint64_t>(), random_value<uint64_t>());
}

std::string_view id_prefix(CompletionKind kind) {
  switch (kind) {
    case CompletionKind::kChat:
      return "chatcmpl-";
    case CompletionKind::kText:
      return "cmpl-";
    case CompletionKind::kMessage:
      return "msg_";
    case CompletionKind::kResponse:
      break;
  }
  return ResponsesReply::kIdPrefix;
}

// Names of fields as they may stand in a header.
std::string join_names(const std::vector<std::string>& names) {
  std::string joined;
  for (const std::string& name : names) {
    const std::string shown = printable(name);
    if (joined.size() + shown.size() > kMaxIgnoredBytes) return joined + ", ...";
    joined += (joined.empty() ? "" : ", ") + shown;
  }
  return joined;
}

}  // namespace

struct Service::Running {
  std::string id;
  Scheduler::Tickets tickets;  // the service's mutex_ guards them, once the id is known
  AnswerMailbox mailbox;
};

Service::Service(const Model& model, const ChatEncoding* chat, Scheduler& scheduler, ServiceOptions options)
    : model_(model),
      chat_(chat),
      scheduler_(scheduler),
      options_(std::move(options)),
      access_(options_.access),
      created_(std::time(nullptr)),
      tries_(model) {}

HttpResponse Service::refusal(int status, const std::string& message) {
  return error_response(ApiError(status, kInvalidRequest, message), {});
}

HttpResponse Service::answer_or_error(std::string_view path, const std::function<HttpResponse()>& answer) {
  try {
    return answer();
  } catch (const ApiError& error) {
    return error_response(error, path);
  } catch (const Error& error) {
    return error_response(ApiError(status_of_error(error.code()), "server_error", error.what()), path);
  } catch (const std::bad_alloc&) {
    return error_response(ApiError(503, "server_error", "out of memory"), path);
  }
}

HttpResponse Service::preflight() {
  HttpResponse response = {204, "text/plain", {}, {}};
  response.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST");
  response.headers.emplace_back("Access-Control-Allow-Headers",
                                "Authorization, Content-Type, x-api-key, anthropic-version");
  return response;
}

HttpResponse Service::handle(const HttpRequest& request, HttpClient& client) {
  bool checked = false;
  HttpResponse response = answer_or_error(request.path, [&] {
    access_.check(request, client);
    checked = true;
    return route(request, client);
  });
  if (checked) access_.tell_origin(request, &response);
  return response;
}

void Service::require_route(const HttpRequest& request) {
  const std::string& path = request.path;
  const bool get = request.method == "GET" || request.method == "HEAD";
  constexpr std::string_view kGet[] = {"/", "/health", "/v1/models", "/metrics", "/props", "/slots"};
  constexpr std::string_view kPost[] = {
      "/v1/chat/completions", "/v1/completions", kMessages,     "/v1/responses",   kCountTokens,
      "/v1/embeddings",       "/tokenize",       "/detokenize", "/apply-template", "/cancel"};
  const bool takes_get =
      std::find(std::begin(kGet), std::end(kGet), path) != std::end(kGet) || path.starts_with(kModelPath);
  const bool takes_post = std::find(std::begin(kPost), std::end(kPost), path) != std::end(kPost);
  if (!takes_get && !takes_post)
    throw ApiError(404, kInvalidRequest,
                   fmt::format("there is no '{}'{}", printable(path),
                               path == "/completion"       ? "; there is /v1/completions"
                               : path.starts_with("/api/") ? "; ollama's protocol is not spoken: "
                                                             "/v1/chat/completions"
                                                           : ""),
                   {}, "unknown_url");
  if (takes_get ? !get : request.method != "POST")
    throw ApiError(405, kInvalidRequest, fmt::format("'{}' takes {}", path, takes_get ? "GET" : "POST"));
}

std::optional<HttpResponse> Service::answer_without_key(const HttpRequest& request) {
  if (request.method == "OPTIONS") return preflight();
  require_route(request);
  if (request.path == "/") return page_response(random_id(""));
  if (request.path == "/health") return json_response("{\"status\": \"ok\"}");
  return std::nullopt;
}

HttpResponse Service::route(const HttpRequest& request, HttpClient& client) {
  if (std::optional<HttpResponse> response = answer_without_key(request)) return std::move(*response);
  const std::string& path = request.path;
  const std::string owner = access_.owner(request);
  if (path == "/v1/chat/completions") return complete(CompletionKind::kChat, request, client, owner);
  if (path == "/v1/completions") return complete(CompletionKind::kText, request, client, owner);
  if (path == "/v1/responses") return complete(CompletionKind::kResponse, request, client, owner);
  if (path == kMessages) return complete(CompletionKind::kMessage, request, client, owner);
  if (path == kCountTokens) return count_tokens(request);
  if (path == "/v1/embeddings") return embeddings(request, client, owner);
  if (path == "/cancel") return cancel(request);
  if (path == "/tokenize") return tokenize(request);
  if (path == "/detokenize") return detokenize(request);
  if (path == "/apply-template") return apply_template(request);
  if (path == "/metrics") {
    const SchedulerStats stats = scheduler_.stats();
    return metrics(&stats);
  }
  if (path == "/props") return props();
  if (path == "/slots") return slots();
  return models(path == "/v1/models" ? "" : path.substr(kModelPath.size()));
}

CompletionRequest Service::parse(CompletionKind kind, const HttpRequest& request) const {
  const std::lock_guard lock(reading_);
  const Json body = parse_request(request.body);
  const RequestContext context = request_context();
  switch (kind) {
    case CompletionKind::kChat:
      return parse_chat_request(body, context);
    case CompletionKind::kText:
      return parse_completion_request(body, context);
    case CompletionKind::kMessage:
      return parse_messages_request(body, context);
    case CompletionKind::kResponse:
      break;
  }
  return parse_responses_request(body, context);
}

RequestContext Service::request_context() const {
  return {model_.tokenizer(), chat_, options_.defaults, options_.seed, model_.context(), tries_};
}

HttpResponse Service::count_tokens(const HttpRequest& request) const {
  const std::lock_guard lock(reading_);
  const Json body = parse_request(request.body);
  return json_response(token_count_json(parse_messages_prompt(body, request_context()).size()));
}

// name: empty: the client named none.
void Service::require_model(const std::string& name) const {
  const std::vector<std::string>& names = options_.names;
  if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end())
    throw ApiError(
        404, kInvalidRequest,
        fmt::format("the model '{}' is not here; there is '{}' (--alias)", printable(name), names.front()),
        "model", "model_not_found");
}

HttpResponse Service::embeddings(const HttpRequest& http, HttpClient& client, const std::string& owner) {
  EmbeddingRequest request;
  {
    const std::lock_guard lock(reading_);
    const Json body = parse_request(http.body);
    request = parse_embedding_request(body, request_context(), options_.pooling, model_.hparams().dim);
  }
  require_model(request.model);
  // The next are in the queue while a pass runs.
  const size_t at_once = 2 * scheduler_.stats().slots.size();
  std::vector<std::vector<float>> vectors = embed(scheduler_, request, at_once, owner, client);
  HttpResponse response;
  response.stream = [request, vectors = std::move(vectors), model = options_.names.front()](HttpSink& sink) {
    write_embeddings(request, vectors, model, sink);
  };
  if (!request.ignored.empty()) response.headers.emplace_back("X-Quern-Ignored", join_names(request.ignored));
  return response;
}

HttpResponse Service::complete(CompletionKind kind, const HttpRequest& http, HttpClient& client,
                               const std::string& owner) {
  const CompletionRequest request = parse(kind, http);
  require_model(request.model);
  const std::vector<std::string>& names = options_.names;

  std::vector<AnswerRequest> requests;
  for (const std::vector<TokenId>& prompt : request.prompts)
    for (size_t i = 0; i < request.n; ++i) {
      AnswerRequest& one = requests.emplace_back();
      one.prompt = prompt;
      one.options = request.options;
      one.options.sampler.seed += i;
      one.log_probs = request.log_probs;
      one.n_top = request.n_top;
      one.prompt_log_probs = request.log_probs && request.echo;
      one.owner = owner;
    }
  auto running = std::make_shared<Running>();
  running->id = random_id(id_prefix(kind));
  running->tickets = scheduler_.submit(
      std::move(requests),
      [running](size_t index, const AnswerEvent& event) { running->mailbox.put(index, event); });
  if (running->tickets.empty())
    throw ApiError(429, "rate_limit_error", "the queue is full; try again later", {}, "queue_full");
  {
    const std::lock_guard lock(mutex_);
    running_[running->id] = running;
  }
  // However this ends, the slots are free then.
  const std::shared_ptr<void> end(nullptr, [this, running](void*) { finish(*running); });
  HttpResponse response;
  response.headers = {{"X-Request-Id", running->id},
                      {"X-Quern-Seed", std::to_string(request.options.sampler.seed)},
                      {"X-Quern-Queue-Position", std::to_string(running->tickets.front()->position())}};
  if (!request.ignored.empty()) response.headers.emplace_back("X-Quern-Ignored", join_names(request.ignored));
  std::shared_ptr<Reply> reply;
  if (kind == CompletionKind::kMessage) {
    response.headers.emplace_back("request-id", running->id);
    reply = std::make_shared<MessagesReply>(running->id, names.front(), request);
  } else if (kind == CompletionKind::kResponse) {
    reply = std::make_shared<ResponsesReply>(running->id, names.front(), request);
  } else {
    reply = std::make_shared<CompletionReply>(kind, model_.tokenizer(), running->id, names.front(), request);
  }

  if (request.stream) {
    response.type = "text/event-stream";
    response.headers.emplace_back("Cache-Control", "no-store");
    response.stream = [running, reply, end](HttpSink& sink) {
      bool there = sink.write(reply->stream_begin());
      auto last_write = std::chrono::steady_clock::now();
      while (there && !reply->finished()) {
        std::string events;
        for (const auto& [index, event] : running->mailbox.take()) events += reply->push(index, event);
        const auto now = std::chrono::steady_clock::now();
        if (events.empty() && now - last_write > kHeartbeat) events = reply->heartbeat();
        if (!events.empty()) last_write = now;
        there = sink.write(events);
      }
      if (there) sink.write(reply->stream_end());
    };
    return response;
  }

  double waited = 0;
  while (!reply->finished()) {
    for (const auto& [index, event] : running->mailbox.take()) {
      if (event.kind == AnswerEvent::Kind::kPrompt) waited = std::max(waited, event.waited);
      reply->push(index, event);
    }
    if (client.gone()) break;
  }
  if (!reply->finished()) throw ApiError(408, kInvalidRequest, "the client is gone");
  if (const AnswerEvent* failure = reply->failure())
    throw ApiError(status_of_error(failure->code), "server_error", failure->text);
  response.headers.emplace_back("X-Quern-Queue-Seconds", fmt::format("{:.3f}", waited));
  response.body = reply->whole();
  return response;
}

// Whether the answers have ended or the client has: what still runs is gone within a step.
void Service::finish(Running& running) {
  Scheduler::Tickets tickets;  // whose listeners own `running`: it lets go of them
  {
    const std::lock_guard lock(mutex_);
    running_.erase(running.id);
    tickets = std::exchange(running.tickets, {});
  }
  for (const auto& ticket : tickets) scheduler_.cancel(ticket);
}

HttpResponse Service::cancel(const HttpRequest& request) {
  const Json body = parse_request(request.body);
  RequestFields fields(body);
  const std::string id = fields.required_text("id");
  Scheduler::Tickets tickets;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = running_.find(id); found != running_.end()) tickets = found->second->tickets;
  }
  if (tickets.empty()) throw ApiError(404, kInvalidRequest, "no answer of this id is running", "id");
  for (const auto& ticket : tickets) scheduler_.cancel(ticket);
  return json_response("{\"cancelled\": true}");
}

HttpResponse Service::models(const std::string& name) const {
  const auto write = [this](JsonWriter& json, const std::string& id) {
    json.begin_object()
        .field("id", id)
        .field("object", "model")
        .field("created", created_)
        .field("owned_by", "quern")
        .field("max_model_len", model_.context())
        .end_object();
  };
  JsonWriter json;
  if (!name.empty()) {
    if (std::find(options_.names.begin(), options_.names.end(), name) == options_.names.end())
      throw ApiError(404, kInvalidRequest, fmt::format("the model '{}' is not here", printable(name)),
                     "model", "model_not_found");
    write(json, name);
    return json_response(json.text());
  }
  json.begin_object().field("object", "list").key("data").begin_array();
  for (const std::string& id : options_.names) write(json, id);
  return json_response(json.end_array().end_object().text());
}

HttpResponse Service::tokenize(const HttpRequest& request) const {
  const std::lock_guard lock(reading_);
  const Json body = parse_request(request.body);
  RequestFields fields(body);
  const std::string text = fields.required_text("content");
  const bool add_special = fields.boolean("add_special", false),
             with_pieces = fields.boolean("with_pieces", false);
  const Tokenizer& tokenizer = model_.tokenizer();
  JsonWriter json;
  json.begin_object().key("tokens").begin_array();
  for (const TokenId id :
       add_special ? encode_request_text(tokenizer, text) : tokenizer.encode(text, TextRole::kMessage)) {
    if (with_pieces)
      json.begin_object().field("id", id).field("piece", tokenizer.piece(id)).end_object();
    else
      json.value(id);
  }
  return json_response(json.end_array().end_object().text());
}

HttpResponse Service::detokenize(const HttpRequest& request) const {
  const std::lock_guard lock(reading_);
  const Json body = parse_request(request.body);
  RequestFields fields(body);
  const Json* tokens = fields.find("tokens");
  if (tokens == nullptr || tokens->as_array() == nullptr)
    refuse("tokens", "tokens: expected a list of token ids");
  const std::vector<TokenId> ids = parse_ids(*tokens->as_array(), model_.tokenizer().size(), "tokens");
  JsonWriter json;
  return json_response(
      json.begin_object().field("content", model_.tokenizer().decode(ids)).end_object().text());
}

HttpResponse Service::apply_template(const HttpRequest& request) const {
  const std::lock_guard lock(reading_);
  const Json body = parse_request(request.body);
  RequestFields fields(body);
  JsonWriter json;
  ToolRequest tools;
  const std::string prompt = render_chat(chat_, parse_chat_variables(fields, chat_, &tools));
  return json_response(json.begin_object().field("prompt", prompt).end_object().text());
}

HttpResponse Service::metrics(const SchedulerStats* stats) {
  HttpResponse response = {200, "text/plain; version=0.0.4", {}, {}};
  const auto add = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    response.body +=
        fmt::format("# HELP quern_{0} {1}\n# TYPE quern_{0} {2}\nquern_{0} {3}\n", name, help, type, value);
  };
  add("model_loaded", "gauge", "Whether a model is in memory.", stats != nullptr ? 1 : 0);
  if (stats == nullptr) return response;
  add("requests_waiting", "gauge", "Requests in the queue.", stats->waiting);
  add("requests_reading", "gauge", "Requests whose prompt is being read.", stats->reading);
  add("requests_running", "gauge", "Requests that are being answered.", stats->running);
  add("requests_finished_total", "counter", "Answers that came to their end.", stats->finished);
  add("requests_interrupted_total", "counter", "Answers that were cancelled.", stats->interrupted);
  add("requests_failed_total", "counter", "Answers that failed.", stats->failed);
  add("requests_refused_total", "counter", "Requests that the queue had no room for.", stats->refused);
  add("prompt_tokens_total", "counter", "Tokens of prompts that were evaluated.", stats->prompt_tokens);
  add("reused_tokens_total", "counter", "Tokens of prompts that were there already.", stats->reused_tokens);
  add("answer_tokens_total", "counter", "Tokens of answers.", stats->answer_tokens);
  add("passes_total", "counter", "Forward passes.", stats->passes);
  add("rows_total", "counter", "Tokens that passes evaluated.", stats->rows);
  add("guesses_total", "counter", "Guesses at tokens that passes evaluated.", stats->guesses);
  add("guesses_taken_total", "counter", "Guesses that came true.", stats->guesses_taken);
  add("cache_bytes", "gauge", "Memory of the prefix cache.", stats->cache.bytes);
  add("cache_file_bytes", "gauge", "Files of the prefix cache on the disk.", stats->cache.file_bytes);
  add("cache_blocks", "gauge", "Blocks of 512 tokens in it.", stats->cache.blocks);
  add("cache_restored_total", "counter", "Blocks that slots got from it.", stats->cache.restored);
  add("cache_dropped_total", "counter", "Blocks that made room for others.", stats->cache.dropped);
  add("busy_seconds_total", "counter", "Time in forward passes.", stats->busy_seconds);
  return response;
}

HttpResponse Service::props() const {
  JsonWriter json;
  json.begin_object()
      .field("version", QUERN_VERSION)
      .field("model", options_.names.front())
      .field("context", model_.context())
      .field("slots", scheduler_.stats().slots.size())
      .field("vocab_size", model_.tokenizer().size())
      .field("dim", model_.hparams().dim)
      .field("pooling", pooling_name(options_.pooling))
      .field("chat", chat_ != nullptr)
      .field("kernels", model_.kernels().name)
      .field("threads", model_.n_threads());
  return json_response(json.end_object().text());
}

HttpResponse Service::slots() const {
  JsonWriter json;
  json.begin_array();
  size_t id = 0;
  for (const SchedulerStats::Slot& slot : scheduler_.stats().slots)
    json.begin_object()
        .field("id", id++)
        .field("is_processing", slot.busy)
        .field("prompt_tokens", slot.prompt)
        .field("position", slot.position)
        .end_object();
  return json_response(json.end_array().text());
}

}  // namespace quern
