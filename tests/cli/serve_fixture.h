// A server of tiny-mistral, and what tests of its answers share.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/cli/http_client.h"
#include "tests/cli/quern_cli.h"

namespace quern::test {

// A server until the end of the object. port() is 0 where it has not begun.
class Server {
 public:
  explicit Server(const std::string& model, const std::vector<std::string>& more = {});
  int port() const { return port_; }
  Process& process() { return *process_; }

 private:
  std::unique_ptr<Process> process_;
  int port_ = 0;
};

// A line of /metrics, without the name's "quern_"; empty: there is none.
std::string metric(int port, const std::string& name);

// A POST to /v1/completions as it goes over the connection.
std::string completion_request(const std::string& body, const std::string& headers = {});

// Within ten seconds.
template <class Condition>
bool becomes_true(const Condition& condition) {
  for (int i = 0; i < 400; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(25));
  }
  return false;
}

// The JSON of each event of a stream; "[DONE]" as a string.
std::vector<Json> events_of(const std::string& body);

// One server for all tests of the suite.
class Serve : public testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();
  static int port() { return server_->port(); }
  static Json chat(const std::string& more, int status = 200) {
    const Reply reply = post(port(), "/v1/chat/completions",
                             R"({"messages": [{"role": "user", "content": "ROMEO:"}], )" + more + "}");
    EXPECT_EQ(reply.status, status) << reply.head << reply.body;
    return Json::parse(reply.body);
  }
  static Reply message(const std::string& more) {
    return post(port(), "/v1/messages",
                R"({"model": "tiny", "messages": [{"role": "user", "content": "ROMEO:"}], )" + more + "}");
  }
  static Json complete(const std::string& more, int status = 200) {
    const Reply reply = post(port(), "/v1/completions", R"({"prompt": "ROMEO:", )" + more + "}");
    EXPECT_EQ(reply.status, status) << reply.head << reply.body;
    return Json::parse(reply.body);
  }

  static std::unique_ptr<TempFolder> folder_;
  static std::string model_;
  static std::unique_ptr<Server> server_;
};

// Each test starts its own.
class ServeAlone : public testing::Test {
 protected:
  TempFolder folder_;
  std::string model_ = converted(folder_, "tiny-mistral", "q4_0");
};

}  // namespace quern::test
