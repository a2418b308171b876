// POST /v1/embeddings as OpenAI has it: texts become vectors.
#pragma once

#include <string>
#include <vector>

#include "cli/serve/completion_request.h"
#include "cli/serve/http_server.h"
#include "runtime/engine/embedding.h"
#include "runtime/engine/scheduler.h"

namespace quern {

struct EmbeddingRequest {
  std::string model;                        // as the client named it; empty: not at all
  std::vector<std::vector<TokenId>> texts;  // none is empty, none longer than the context
  EmbeddingOptions options;
  bool base64 = false;               // vectors as the bytes of little-endian floats, in base64
  std::vector<std::string> ignored;  // fields without effect
};

// pooling: where the request does not say. dim: of the model's vectors. Throws ApiError: 400 with the field.
EmbeddingRequest parse_embedding_request(const Json& body, const RequestContext& context, Pooling pooling,
                                         size_t dim);

// The vectors of all texts, in their order: [dim] or [dimensions] each. Never asks the scheduler for more
// than `at_once` texts at a time, so that a long list does not need a long queue. Throws ApiError: 429 where
// there is no room for the first, 408 when the client goes, 503 when the server stops, what status_of_error()
// says for one that failed.
std::vector<std::vector<float>> embed(Scheduler& scheduler, const EmbeddingRequest& request, size_t at_once,
                                      const std::string& owner, HttpClient& client);

// {"object": "list", "data": [...], "model", "usage"}, a vector at a time: the text of thousands would take
// several times their memory. Ends early when the client is gone.
void write_embeddings(const EmbeddingRequest& request, const std::vector<std::vector<float>>& vectors,
                      const std::string& model, HttpSink& sink);

}  // namespace quern
