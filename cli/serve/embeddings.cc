#include "cli/serve/embeddings.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "cli/serve/answer_mailbox.h"
#include "quant/json/json_writer.h"

namespace quern {
namespace {

constexpr size_t kMaxTexts = 2048;  // as OpenAI has it

// RFC 4648 section 4.
std::string to_base64(std::span<const uint8_t> bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(bytes.size() - i, 3);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (k < n ? bytes[i + k] : 0u);
    for (size_t k = 0; k < 4; ++k) text += k <= n ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

std::string to_base64(std::span<const float> values) {
  std::vector<uint8_t> bytes;
  bytes.reserve(4 * values.size());
  for (const float value : values) {
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<uint8_t>(bits >> shift));
  }
  return to_base64(bytes);
}

std::vector<TokenId> parse_input(const Json& one, const RequestContext& context, const std::string& param) {
  std::vector<TokenId> ids;
  if (const std::string* text = one.as_string()) {
    if (!text->empty()) ids = context.tokenizer.encode_document(*text, TextRole::kMessage);
  } else if (one.as_array() != nullptr) {
    ids = parse_ids(*one.as_array(), context.tokenizer.size(), param);
  } else {
    refuse(param, fmt::format("{}: expected a text or token ids, found {}", param, one.describe()));
  }
  if (ids.empty()) refuse(param, param + ": an empty text has no embedding");
  if (ids.size() > context.context)
    throw ApiError(
        400, kInvalidRequest,
        fmt::format("{}: the text has {} tokens and the context {}", param, ids.size(), context.context),
        param, "context_length_exceeded");
  return ids;
}

}  // namespace

EmbeddingRequest parse_embedding_request(const Json& body, const RequestContext& context, Pooling pooling,
                                         size_t dim) {
  RequestFields fields(body);
  EmbeddingRequest request;
  request.model = fields.text("model").value_or("");
  const std::string format = fields.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    refuse_word("encoding_format", "\"float\" or \"base64\"", format);
  request.base64 = format == "base64";
  request.options.dimensions =
      static_cast<size_t>(fields.integer("dimensions", 1, static_cast<int64_t>(dim)).value_or(0));
  request.options.pooling = pooling;
  if (const auto word = fields.text("pooling")) {
    const std::optional<Pooling> known = parse_pooling(*word);
    if (!known) refuse_word("pooling", "\"mean\" or \"last\"", *word);
    request.options.pooling = *known;
  }
  const Json& input = fields.required("input");
  const bool is_one = input.as_array() == nullptr || (input.size() > 0 && input[0].as_number());
  const std::span<const Json> list = is_one ? std::span(&input, 1) : std::span(*input.as_array());
  if (list.empty() || list.size() > kMaxTexts)
    refuse("input", fmt::format("input: expected 1 to {} texts, found {}", kMaxTexts, list.size()));
  for (size_t i = 0; i < list.size(); ++i)
    request.texts.push_back(parse_input(list[i], context, is_one ? "input" : fmt::format("input[{}]", i)));
  request.ignored = fields.unknown();
  return request;
}

std::vector<std::vector<float>> embed(Scheduler& scheduler, const EmbeddingRequest& request, size_t at_once,
                                      const std::string& owner, HttpClient& client) {
  const auto mailbox = std::make_shared<AnswerMailbox>();
  Scheduler::Tickets tickets;
  // However this ends, the slots are free then.
  const std::shared_ptr<void> cancel(nullptr, [&](void*) {
    for (const auto& ticket : tickets) scheduler.cancel(ticket);
  });
  const size_t n = request.texts.size();
  std::vector<std::vector<float>> vectors(n);
  size_t n_sent = 0, n_done = 0;
  const auto send = [&](size_t count) {
    std::vector<AnswerRequest> requests(count);
    for (size_t i = 0; i < count; ++i) {
      requests[i].prompt = request.texts[n_sent + i];
      requests[i].embedding = request.options;
      requests[i].owner = owner;
    }
    const Scheduler::Tickets sent = scheduler.submit(
        std::move(requests), [mailbox, first = n_sent](size_t index, const AnswerEvent& event) {
          if (event.kind != AnswerEvent::Kind::kPrompt) mailbox->put(first + index, event);
        });
    tickets.insert(tickets.end(), sent.begin(), sent.end());
    n_sent += sent.size();
    return !sent.empty();
  };
  while (n_done < n) {
    // What others can spare; at first one text, whatever there is.
    const size_t room = std::min({at_once - std::min(at_once, n_sent - n_done), n - n_sent,
                                  std::max<size_t>(scheduler.spare_room(), n_sent == 0 ? 1 : 0)});
    if (room > 0 && !send(room) && n_sent == 0)
      throw ApiError(429, "rate_limit_error", "the queue is full; try again later", {}, "queue_full");
    for (auto& [index, event] : mailbox->take()) {
      if (event.kind == AnswerEvent::Kind::kFailed)
        throw ApiError(status_of_error(event.code), "server_error", event.text);
      if (event.embedding.empty()) throw ApiError(503, "server_error", "the server is stopping");
      vectors[index] = std::move(event.embedding);
      ++n_done;
    }
    if (n_done < n && client.gone()) throw ApiError(408, kInvalidRequest, "the client is gone");
  }
  return vectors;
}

void write_embeddings(const EmbeddingRequest& request, const std::vector<std::vector<float>>& vectors,
                      const std::string& model, HttpSink& sink) {
  if (!sink.write(R"({"object": "list", "data": [)")) return;
  for (size_t i = 0; i < vectors.size(); ++i) {
    JsonWriter json;
    json.begin_object().field("object", "embedding").field("index", i).key("embedding");
    request.base64 ? json.value(to_base64(vectors[i])) : json.value(vectors[i]);
    if (!sink.write((i == 0 ? "" : ", ") + json.end_object().text())) return;
  }
  size_t n_tokens = 0;
  for (const std::vector<TokenId>& text : request.texts) n_tokens += text.size();
  JsonWriter usage, name;
  usage.begin_object().field("prompt_tokens", n_tokens).field("total_tokens", n_tokens).end_object();
  name.value(model);
  sink.write(fmt::format(R"(], "model": {}, "usage": {}}})", name.text(), usage.text()));
}

}  // namespace quern
