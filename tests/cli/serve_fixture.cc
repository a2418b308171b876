#include "tests/cli/serve_fixture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

namespace quern::test {

Server::Server(const std::string& model, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"serve", model, "--port", "0", "--alias", "tiny"};
  if (std::find(more.begin(), more.end(), "--template") == more.end())
    arguments.insert(arguments.end(), {"--chat-format", "mistral-v1"});
  arguments.insert(arguments.end(), more.begin(), more.end());
  process_ = std::make_unique<Process>(quern_command(arguments), with_test_environment());
  const std::string kLine = "listening on http://127.0.0.1:";
  if (!process_->wait_for_stderr(kLine) || !process_->wait_for_stderr("\n")) return;
  const std::string& text = process_->stderr_text();
  port_ = std::atoi(text.c_str() + text.find(kLine) + kLine.size());
}

std::string metric(int port, const std::string& name) {
  const std::string text = request(port, "GET", "/metrics").body;
  const size_t at = text.find("\nquern_" + name + " ");
  if (at == text.npos) return {};
  const size_t begin = at + name.size() + std::string("\nquern_ ").size();
  return text.substr(begin, text.find('\n', begin) - begin);
}

std::string completion_request(const std::string& body, const std::string& headers) {
  return fmt::format(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{}"
      "Content-Length: {}\r\n\r\n{}",
      headers, body.size(), body);
}

std::vector<Json> events_of(const std::string& body) {
  std::vector<Json> events;
  size_t at = 0;
  while ((at = body.find("data: ", at)) != body.npos) {
    at += 6;
    const std::string text = body.substr(at, body.find("\n\n", at) - at);
    events.push_back(text == "[DONE]" ? Json("[DONE]") : Json::parse(text));
  }
  return events;
}

std::unique_ptr<TempFolder> Serve::folder_;
std::string Serve::model_;
std::unique_ptr<Server> Serve::server_;

void Serve::SetUpTestSuite() {
  folder_ = std::make_unique<TempFolder>();
  model_ = converted(*folder_, "tiny-mistral", "q4_0");
  server_ =
      std::make_unique<Server>(model_, std::vector<std::string>{"--slots", "4", "--max-body", "1000000"});
}

void Serve::TearDownTestSuite() {
  server_.reset();
  folder_.reset();
}

}  // namespace quern::test
