// serve: the server itself: who may ask, what is no request, many clients at a time, its beginning and end.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <system_error>
#include <thread>

#include "tests/cli/serve_fixture.h"

namespace quern::test {
namespace {

bool wait_for_metric(int port, const std::string& name, const std::string& value) {
  return becomes_true([&] { return metric(port, name) == value; });
}

// Of 127.0.0.1, at a port that the system chose; it does not listen, and stays open in a child.
class BoundSocket {
 public:
  BoundSocket() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~BoundSocket() { close(fd_); }
  BoundSocket(const BoundSocket&) = delete;
  BoundSocket& operator=(const BoundSocket&) = delete;

  int fd() const { return fd_; }
  int port() const { return port_; }

 private:
  const int fd_ = socket(AF_INET, SOCK_STREAM, 0);
  int port_ = 0;
};

TEST_F(Serve, SaysThatItIsThereAndWhatItServes) {
  EXPECT_EQ(request(port(), "GET", "/health").status, 200);
  EXPECT_EQ(request(port(), "HEAD", "/health").body, "");
  const Json models = Json::parse(request(port(), "GET", "/v1/models").body);
  EXPECT_EQ(models["data"][0]["id"], "tiny");
  EXPECT_EQ(request(port(), "GET", "/v1/models/tiny").status, 200);
  EXPECT_EQ(request(port(), "GET", "/v1/models/other").status, 404);
  EXPECT_EQ(request(port(), "GET", "/nothing").status, 404);
  EXPECT_EQ(request(port(), "GET", "/v1/completions").status, 405);
  const Json props = Json::parse(request(port(), "GET", "/props").body);
  EXPECT_EQ(props["slots"], 4);
  EXPECT_EQ(Json::parse(request(port(), "GET", "/slots").body).size(), 4u);
}

TEST_F(Serve, PageComesWholeAndMayAskItsServerAlone) {
  const Reply page = request(port(), "GET", "/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.header("Content-Type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.header("X-Content-Type-Options"), "nosniff");
  EXPECT_EQ(page.header("Referrer-Policy"), "no-referrer");
  const std::string policy = page.header("Content-Security-Policy");
  EXPECT_TRUE(policy.starts_with("default-src 'none'; script-src 'nonce-")) << policy;
  EXPECT_NE(policy.find("connect-src 'self'"), std::string::npos) << policy;
  EXPECT_EQ(policy.find("unsafe"), std::string::npos) << policy;
  // What it runs has the nonce of this answer and no other.
  const size_t at = policy.find("nonce-") + 6;
  const std::string nonce = policy.substr(at, policy.find('\'', at) - at);
  EXPECT_GE(nonce.size(), 32u);
  EXPECT_NE(page.body.find("<script nonce=\"" + nonce + "\">"), std::string::npos);
  EXPECT_EQ(request(port(), "GET", "/").body.find(nonce), std::string::npos);
  for (const char* placeholder : {"@NONCE@", "@STYLE@", "@MARKDOWN@", "@SCRIPT@"})
    EXPECT_EQ(page.body.find(placeholder), std::string::npos) << placeholder;
  for (const char* part : {"MarkdownView", "v1/chat/completions", "--ground", "</html>"})
    EXPECT_NE(page.body.find(part), std::string::npos) << part;

  EXPECT_LT(page.body.size(), 200'000u);
  for (const char* outside : {"http://", "https://", "src=", "@import", "url(", "innerHTML", "eval("})
    EXPECT_EQ(page.body.find(outside), std::string::npos) << outside;
  EXPECT_EQ(request(port(), "HEAD", "/").body, "");
  EXPECT_EQ(post(port(), "/", "{}").status, 405);
}

TEST_F(Serve, HostileBodiesAreRefusedSoon) {
  const std::string deep(100000, '[');
  const std::string bodies[] = {deep,
                                "{\"a\":" + deep,
                                "{\"prompt\": \"\xff\xfe\"}",
                                fmt::format("{{\"prompt\": 1{}}}", std::string(400000, '0')),
                                "",
                                "null",
                                "{",
                                "{\"prompt\": \"a\", \"prompt\": \"b\"}",
                                std::string(1000, '\0'),
                                fmt::format("{{\"prompt\": [{}]}}", std::string(300000, ','))};
  for (const std::string& body : bodies) {
    const auto begin = std::chrono::steady_clock::now();
    for (const char* path :
         {"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/apply-template", "/cancel",
          "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings", "/v1/responses"})
      EXPECT_EQ(post(port(), path, body).status, 400) << path << body.substr(0, 20);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(6)) << body.substr(0, 20);
  }
  std::string numbers = "[1";
  for (int i = 0; i < 300000; ++i) numbers += ",1";
  EXPECT_EQ(post(port(), "/detokenize", "{\"tokens\": " + numbers + "]}").status, 400) << "too many values";
  std::string many_ids = "{\"prompt\": [1";
  for (int i = 0; i < 5000; ++i) many_ids += ",1";
  const Reply too_long = post(port(), "/v1/completions", many_ids + "]}");
  EXPECT_EQ(too_long.status, 400);
  EXPECT_EQ(Json::parse(too_long.body)["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(post(port(), "/v1/completions", std::string(1000001, ' ')).status, 413);
  EXPECT_EQ(request(port(), "GET", "/health").status, 200);
}

TEST_F(Serve, GarbageOnTheSocketIsAnsweredOrClosed) {
  const std::pair<std::string, int> kBad[] = {
      {"GET\r\n\r\n", 400},
      {std::string(3, '\0') + "\r\n\r\n", 400},
      {"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400},
      {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400},
      {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999\r\n\r\n", 413},
      {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: "
       "chunked\r\n\r\n",
       400},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
      {"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", 400},  // no Host
  };
  for (const auto& [bytes, status] : kBad) {
    Connection connection(port());
    connection.send(bytes);
    EXPECT_EQ(connection.read_reply().status, status) << bytes;
  }
  std::string many = "GET /health HTTP/1.1\r\nHost: localhost\r\n";
  for (int i = 0; i < 200; ++i) many += "X-A: b\r\n";
  Connection headers(port());
  headers.send(many + "\r\n");
  EXPECT_EQ(headers.read_reply().status, 431);
  Connection endless(port());
  endless.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX: ");
  for (int i = 0; i < 100 && endless.send(std::string(4096, 'a')); ++i) {
  }
  EXPECT_EQ(endless.read_reply().status, 431);
  // A body in chunks that never ends is no way around the limit.
  Connection chunks(port());
  chunks.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 100 && chunks.send(fmt::format("10000\r\n{}\r\n", std::string(0x10000, ' '))); ++i) {
  }
  EXPECT_EQ(chunks.read_reply().status, 413);
  std::mt19937 random(1);
  for (int i = 0; i < 50; ++i) {
    std::string bytes(1 + random() % 300, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    Connection(port()).send(bytes);
  }
  EXPECT_EQ(request(port(), "GET", "/health").status, 200);
}

TEST_F(Serve, ConnectionIsKeptAndTakesOneRequestAfterTheOther) {
  Connection connection(port());
  const std::string get = "GET /health HTTP/1.1\r\nHost: localhost\r\n";
  connection.send(get + "\r\n" + get + "\r\n");  // both at once
  connection.send(get + "Connection: close\r\n\r\n");
  const std::string all = connection.read_until("no such text");
  size_t n = 0;
  for (size_t at = 0; (at = all.find("HTTP/1.1 200 OK", at)) != all.npos; ++at) ++n;
  EXPECT_EQ(n, 3u) << all;
  Connection expecting(port());
  const std::string body = R"({"content": "a"})";
  expecting.send(
      fmt::format("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  "Connection: close\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
                  body.size()));
  EXPECT_NE(expecting.read_until("100 Continue").find("100 Continue"), std::string::npos);
  expecting.send(body);
  EXPECT_NE(expecting.read_until("tokens").find("200 OK"), std::string::npos);
}

TEST_F(Serve, PagesOfOthersMayNotAsk) {
  const std::string body = R"({"prompt": "a", "max_tokens": 1})";
  const auto status = [&](const std::vector<std::string>& headers) {
    return request(port(), "POST", "/v1/completions", body, headers).status;
  };
  const std::string json = "Content-Type: application/json; charset=utf-8";
  const std::string own = fmt::format("127.0.0.1:{}", port());
  EXPECT_EQ(status({json}), 200);
  EXPECT_EQ(status({json, "Host: " + own, "Origin: http://" + own}), 200);
  EXPECT_EQ(status({json, "Host: " + own, "Origin: http://evil.example"}), 403);
  EXPECT_EQ(status({json, "Host: " + own, "Origin: null"}), 403);
  EXPECT_EQ(status({json, "Host: evil.example"}), 403);
  EXPECT_EQ(status({"Content-Type: text/plain"}), 415);
  EXPECT_EQ(status({}), 415);
  EXPECT_EQ(request(port(), "OPTIONS", "/v1/completions", {}, {"Host: " + own, "Origin: http://evil.example"})
                .status,
            403);
}

TEST_F(Serve, ClientThatGoesFreesItsSlot) {
  const std::string long_one = R"({"prompt": "ROMEO:", "max_tokens": 900, "ignore_eos": true, "stream": )";
  for (const char* stream : {"true}", "false}"}) {
    const int before = std::atoi(metric(port(), "requests_interrupted_total").c_str());
    {
      std::vector<std::unique_ptr<Connection>> connections;
      for (int i = 0; i < 3; ++i) {
        connections.push_back(std::make_unique<Connection>(port()));
        const std::string body = long_one + stream;
        connections.back()->send(completion_request(body));
      }
      // Closed in the middle.
      if (stream == std::string("true}")) connections[0]->read_until("data: ");
    }
    // Nothing runs before the server has read the requests, either: all three are seen to end.
    EXPECT_TRUE(becomes_true(
        [&] { return std::atoi(metric(port(), "requests_interrupted_total").c_str()) == before + 3; }));
    EXPECT_TRUE(wait_for_metric(port(), "requests_running", "0"));
    EXPECT_TRUE(wait_for_metric(port(), "requests_waiting", "0"));
  }
}

TEST_F(Serve, AnswerIsCancelledByItsId) {
  Connection connection(port());
  const std::string body =
      R"({"prompt": "ROMEO:", "max_tokens": 1000, "ignore_eos": true, "stream": true, "n": 30})";
  connection.send(completion_request(body, "Connection: close\r\n"));
  const std::string begin = connection.read_until("data: ");
  const size_t at = begin.find("X-Request-Id: ") + 14;
  const std::string id = begin.substr(at, begin.find("\r\n", at) - at);
  EXPECT_EQ(post(port(), "/cancel", R"({"id": "cmpl-0"})").status, 404);
  EXPECT_EQ(post(port(), "/cancel", "{\"id\": \"" + id + "\"}").status, 200);
  const std::string body_text = connection.read_reply().body;
  EXPECT_NE(body_text.find("\"cancelled\""), std::string::npos);
  EXPECT_NE(body_text.find("[DONE]"), std::string::npos);
}

// Alone, and all at once beside streams that break off.
TEST_F(Serve, AnswersDoNotDependOnWhoElseIsServed) {
  std::vector<std::string> bodies;
  for (int i = 0; i < 24; ++i)
    bodies.push_back(fmt::format(R"({{"prompt": "{}:", "max_tokens": {}, "seed": {}, "logprobs": 2}})",
                                 std::string(static_cast<size_t>(1 + 7 * (i % 9)), 'A'), 4 + 3 * (i % 7), i));
  const auto ask = [](const std::string& body) {
    return Json::parse(post(port(), "/v1/completions", body).body)["choices"].dump();
  };
  std::vector<std::string> alone, together(bodies.size());
  for (const std::string& body : bodies) alone.push_back(ask(body));
  std::vector<std::thread> threads;
  for (size_t i = bodies.size(); i-- > 0;) threads.emplace_back([&, i] { together[i] = ask(bodies[i]); });
  for (int i = 0; i < 8; ++i) {
    Connection gone(port());
    const std::string body = R"({"prompt": "ROMEO:", "max_tokens": 300, "stream": true})";
    gone.send(completion_request(body));
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < bodies.size(); ++i) EXPECT_EQ(together[i], alone[i]) << i;
}

TEST_F(ServeAlone, FullQueueAnswers429AndASignalDrains) {
  Server server(model_, {"--slots", "1", "--queue", "1", "--ctx", "1024"});
  ASSERT_NE(server.port(), 0) << server.process().stderr_text();
  const std::string body = R"({"prompt": "ROMEO:", "max_tokens": 300, "ignore_eos": true, "temperature": 0})";
  std::vector<Reply> replies(12);
  std::vector<std::thread> threads;
  for (Reply& reply : replies)
    threads.emplace_back([&] {
      try {
        reply = post(server.port(), "/v1/completions", body);
      } catch (const std::system_error&) {  // came after the signal: nobody listens
      }
    });
  // One has a slot, so it is answered; the queue was full for another.
  const auto has_any = [&](const char* name) { return std::atoi(metric(server.port(), name).c_str()) > 0; };
  EXPECT_TRUE(becomes_true([&] { return has_any("requests_refused_total") && has_any("passes_total"); }));
  server.process().send_signal(SIGTERM);
  for (std::thread& thread : threads) thread.join();
  size_t n_answered = 0, n_refused = 0;
  for (const Reply& reply : replies) {
    n_answered += reply.status == 200;
    n_refused += reply.status == 429;
    if (reply.status != 200) continue;
    EXPECT_EQ(Json::parse(reply.body)["usage"]["completion_tokens"], 300);
  }
  EXPECT_GE(n_answered, 1u);
  EXPECT_GE(n_refused, 1u);
  EXPECT_EQ(server.process().wait().exit_code, 0);
}

uint64_t resident_kib(pid_t pid) {
  const std::string status = read_file(fmt::format("/proc/{}/status", pid));
  const size_t at = status.find("VmRSS:");
  return at == status.npos ? 0 : std::strtoull(status.c_str() + at + 6, nullptr, 10);
}

TEST_F(ServeAlone, MemoryDoesNotGrowWithTheNumberOfRequests) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer keeps what was freed";
  Server server(model_, {"--slots", "2"});
  const auto ask = [&](int n) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&] {
        for (int j = 0; j < n; ++j)
          EXPECT_EQ(post(server.port(), "/v1/completions", R"({"prompt": "A", "max_tokens": 1})").status,
                    200);
      });
    for (std::thread& thread : threads) thread.join();
    return resident_kib(server.process().pid());
  };
  const uint64_t before = ask(100);
  ASSERT_GT(before, 0u);
  EXPECT_LT(ask(200), before + 4096) << "800 requests later";
}

TEST_F(ServeAlone, SecondSignalEndsItAtOnce) {
  Server server(model_, {"--slots", "1"});
  Connection connection(server.port());
  const std::string body =
      R"({"prompt": "ROMEO:", "max_tokens": 1000, "ignore_eos": true, "stream": true, "n": 60})";
  connection.send(completion_request(body));
  connection.read_until("data: ");
  server.process().send_signal(SIGTERM);
  ASSERT_TRUE(server.process().wait_for_stderr("waiting for the running answers"));
  server.process().send_signal(SIGTERM);
  EXPECT_EQ(server.process().wait().exit_code, 143);
}

TEST_F(ServeAlone, KeysAreAskedForWhereThereAreSome) {
  const std::string keys = folder_.write("keys", "# two users\nfirst-key\n\nsecond-key\n");
  Server server(model_, {"--api-key-file", keys, "--allow-origin", "https://pages.example"});
  ASSERT_NE(server.port(), 0) << server.process().stderr_text();
  const auto status = [&](const std::vector<std::string>& headers) {
    return request(server.port(), "GET", "/v1/models", {}, headers).status;
  };
  EXPECT_EQ(status({}), 401);
  EXPECT_EQ(status({"Authorization: Bearer first-ke"}), 401);
  EXPECT_EQ(status({"Authorization: Bearer first-keyfirst-key"}), 401);
  EXPECT_EQ(status({"Authorization: Bearer "}), 401);
  EXPECT_EQ(status({"Authorization: Bearer # two users"}), 401);
  EXPECT_EQ(status({"Authorization: Bearer first-key"}), 200);
  EXPECT_EQ(status({"x-api-key: second-key"}), 200);
  for (const char* path : {"/metrics", "/slots", "/props"})
    EXPECT_EQ(request(server.port(), "GET", path).status, 401);
  EXPECT_EQ(request(server.port(), "GET", "/health").status, 200);
  // The page asks for a key by itself, and knows nothing before.
  const Reply page = request(server.port(), "GET", "/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.body.find("tiny"), std::string::npos) << "the model's name";
  const auto message = [&](const std::vector<std::string>& headers) {
    return post(server.port(), "/v1/messages",
                R"({"max_tokens": 1, "messages": [{"role": "user", "content": "a"}]})", headers);
  };
  EXPECT_EQ(Json::parse(message({}).body)["error"]["type"], "authentication_error");
  EXPECT_EQ(message({"x-api-key: second-key"}).status, 200);
  const Reply allowed =
      request(server.port(), "OPTIONS", "/v1/models", {}, {"Origin: https://pages.example"});
  EXPECT_EQ(allowed.status, 204);
  EXPECT_EQ(allowed.header("Access-Control-Allow-Origin"), "https://pages.example");
}

TEST_F(ServeAlone, WhatCannotBeServedIsSaidAtTheStart) {
  EXPECT_EQ(quern({"serve", model_, "--host", "0.0.0.0"}).exit_code, 1);
  EXPECT_EQ(quern({"serve", model_, "--host", "example.org", "--no-api-key"}).exit_code, 1);
  EXPECT_EQ(quern({"serve", model_, "--api-key-file", folder_.write("empty", "\n# none\n")}).exit_code, 1);
  EXPECT_EQ(quern({"serve", model_, "--port", "70000"}).exit_code, 1);
  EXPECT_EQ(quern({"serve", model_, "--stop", ""}).exit_code, 1);
  EXPECT_EQ(quern({"serve", model_, "--slots", "256", "--ctx", "16000k"}).exit_code, 4);
  EXPECT_EQ(quern({"serve", folder_.write("bad.gguf", "GGUF")}).exit_code, 2);
  EXPECT_EQ(quern({"serve", model_, "--unix", folder_.file("nowhere") + "/socket"}).exit_code, 5);
}

TEST_F(ServeAlone, TakenAddressIsSaidBeforeAModelIsLoaded) {
  const BoundSocket taken;
  const std::string port = std::to_string(taken.port());
  const std::string broken = folder_.write("broken.gguf", "no model");
  for (const std::string& model : {model_, broken}) {
    const ProcessResult result = quern({"serve", model, "--port", port});
    EXPECT_EQ(result.exit_code, 5) << describe(result);
    EXPECT_EQ(result.err, fmt::format("error: cannot listen on 127.0.0.1 port {} (--host, --port): "
                                      "Address already in use\n",
                                      port));
  }
  const std::string path = folder_.write("socket", "of somebody else");
  EXPECT_EQ(quern({"serve", broken, "--unix", path}).exit_code, 5);
  EXPECT_EQ(read_file(path), "of somebody else");
}

TEST_F(ServeAlone, AModelThatDoesNotLoadLeavesNoSocket) {
  const std::string path = folder_.file("socket");
  EXPECT_EQ(quern({"serve", folder_.write("broken.gguf", "no model"), "--unix", path}).exit_code, 2);
  EXPECT_FALSE(std::filesystem::exists(path));
}

// A server on a unix socket whose stderr takes nothing, so that it stands still at the first line about the
// model that it loads, until it may go on.
class LoadingServer {
 public:
  LoadingServer(const std::string& model, const std::string& path) {
    EXPECT_EQ(pipe(ends_), 0);
    fcntl(ends_[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends_[1], F_SETFL, O_NONBLOCK);
    const std::string page(4096, '.');
    while (write(ends_[1], page.data(), page.size()) > 0) continue;
    fcntl(ends_[1], F_SETFL, 0);
    std::string line = fmt::format("exec 2>&{}; exec", ends_[1]);
    for (const std::string& word : quern_command({"serve", model, "--unix", path})) line += " '" + word + "'";
    process_ =
        std::make_unique<Process>(std::vector<std::string>{"/bin/sh", "-c", line}, with_test_environment());
    close(ends_[1]);
    EXPECT_TRUE(becomes_true([&] {
      try {
        early_ = std::make_unique<Connection>(path);
      } catch (const std::system_error&) {
      }
      return early_ != nullptr;
    })) << "it does not listen";
  }
  ~LoadingServer() { close(ends_[0]); }
  LoadingServer(const LoadingServer&) = delete;
  LoadingServer& operator=(const LoadingServer&) = delete;

  void go_on() {
    std::string page(4096, '\0');
    fcntl(ends_[0], F_SETFL, O_NONBLOCK);
    while (read(ends_[0], page.data(), page.size()) > 0) continue;
  }
  Connection& early() { return *early_; }  // of a client that came meanwhile
  Process& process() { return *process_; }

 private:
  int ends_[2] = {-1, -1};
  std::unique_ptr<Process> process_;
  std::unique_ptr<Connection> early_;
};

TEST_F(ServeAlone, ClientsThatComeWhileAModelIsLoadedWaitForTheirAnswer) {
  const std::string path = folder_.file("socket");
  LoadingServer server(model_, path);
  EXPECT_TRUE(server.early().send(
      completion_request(R"({"prompt": "a", "max_tokens": 2})", "Connection: close\r\n")));
  server.process().run_for(0.1);
  EXPECT_TRUE(server.process().running());
  server.go_on();
  EXPECT_EQ(server.early().read_reply().status, 200);
  server.process().send_signal(SIGTERM);
  EXPECT_EQ(server.process().wait().exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ServeAlone, ASignalWhileAModelIsLoadedEndsItAndLeavesNoSocket) {
  const std::string path = folder_.file("socket");
  LoadingServer server(model_, path);
  EXPECT_TRUE(server.early().send(completion_request(R"({"prompt": "a"})")));
  server.process().send_signal(SIGTERM);
  const ProcessResult result = server.process().wait();
  EXPECT_EQ(result.exit_code, 143) << describe(result);
  EXPECT_EQ(server.early().read_reply().status, 0);
  EXPECT_FALSE(std::filesystem::exists(path));
}

// As systemd hands over the socket of a unit: descriptor 3, and who it is meant for in the environment.
TEST_F(ServeAlone, TakesTheSocketThatItWasStartedFor) {
  const BoundSocket bound;
  const int listener = bound.fd();
  const auto start = [&](const std::string& environment, int descriptor) {
    std::string line = fmt::format("exec 3<&{}; {} exec", descriptor, environment);
    for (const std::string& word : quern_command({"serve", model_, "--port", "0"})) line += " '" + word + "'";
    return std::make_unique<Process>(std::vector<std::string>{"/bin/sh", "-c", line},
                                     with_test_environment());
  };
  const std::string meant_for_it = "LISTEN_PID=$$ LISTEN_FDS=1";
  EXPECT_EQ(start(meant_for_it, listener)->wait().exit_code, 1) << "it does not listen yet";
  EXPECT_EQ(start("LISTEN_PID=$$ LISTEN_FDS=2", listener)->wait().exit_code, 1);

  ASSERT_EQ(listen(listener, 8), 0);
  const int port = bound.port();
  const auto served = start(meant_for_it, listener);
  // Who connects before it is ready waits.
  EXPECT_EQ(request(port, "GET", "/health").status, 200);
  EXPECT_TRUE(served->wait_for_stderr(fmt::format("listening on http://127.0.0.1:{}\n", port)));
  served->send_signal(SIGTERM);
  EXPECT_EQ(served->wait().exit_code, 0);

  const auto another = start("LISTEN_PID=1 LISTEN_FDS=1", listener);  // meant for somebody else
  ASSERT_TRUE(another->wait_for_stderr("listening on http://127.0.0.1:"));
  ASSERT_TRUE(another->wait_for_stderr("\n"));
  EXPECT_EQ(another->stderr_text().find(fmt::format("127.0.0.1:{}\n", port)), std::string::npos);
}

TEST_F(ServeAlone, SocketOfBothFamiliesIsCalledByAnAddressOfEither) {
  const int probe = socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  const bool has_ipv6 = probe >= 0 && bind(probe, reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0;
  if (probe >= 0) close(probe);
  if (!has_ipv6) GTEST_SKIP() << "no IPv6 on this machine";
  Process process(quern_command({"serve", model_, "--port", "0", "--host", "::", "--no-api-key"}),
                  with_test_environment());
  const std::string words = "listening on http://[::]:";
  ASSERT_TRUE(process.wait_for_stderr(words)) << process.stderr_text();
  ASSERT_TRUE(process.wait_for_stderr("\n"));
  process.run_for(0.1);
  const std::string& text = process.stderr_text();
  const int port = std::atoi(text.c_str() + text.find(words) + words.size());
  EXPECT_EQ(request(port, "GET", "/health").status, 200);  // Host: 127.0.0.1
}

TEST_F(ServeAlone, ModelWithoutATemplateCompletesTexts) {
  std::vector<std::string> arguments = {"serve", model_, "--port", "0"};
  Process process(quern_command(arguments), with_test_environment());
  ASSERT_TRUE(process.wait_for_stderr("listening on http://127.0.0.1:")) << process.stderr_text();
  EXPECT_NE(process.stderr_text().find("warning: no conversations"), std::string::npos);
  process.run_for(0.1);
  const std::string& text = process.stderr_text();
  const int port = std::atoi(text.c_str() + text.find("127.0.0.1:") + 10);
  EXPECT_EQ(post(port, "/v1/completions", R"({"prompt": "a", "max_tokens": 1})").status, 200);
  EXPECT_EQ(post(port, "/v1/chat/completions", R"({"messages": [{"role": "user", "content": "a"}]})").status,
            400);
}

TEST_F(ServeAlone, PromptIsReadFromTheBlocksOfAnEarlierOne) {
  const std::string cache = folder_.file("cache");
  std::string text;
  for (int i = 0; i < 60; ++i) text += "KING " + std::to_string(i * i) + ": What say you to the people? ";
  const auto ask = [&](int port, const std::string& prompt) {
    const Reply reply =
        post(port, "/v1/completions",
             R"({"prompt": ")" + prompt + R"(", "max_tokens": 8, "seed": 1, "temperature": 1})");
    EXPECT_EQ(reply.status, 200) << reply.body;
    return Json::parse(reply.body);
  };
  const auto cached = [](const Json& answer) -> size_t {
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"];
  };
  const std::vector<std::string> options = {"--slots", "1", "--ctx", "4096", "--cache-dir", cache};
  Json first, again;
  {
    const Server server(model_, options);
    ASSERT_NE(server.port(), 0);
    first = ask(server.port(), text + "ROMEO:");
    EXPECT_EQ(cached(first), 0u);
    ask(server.port(), "Something else, in the same slot.");
    again = ask(server.port(), text + "ROMEO:");
    EXPECT_EQ(again["choices"][0]["text"], first["choices"][0]["text"]);
    EXPECT_GE(cached(again), 512u);
    EXPECT_EQ(cached(again) % 512, 0u);
    EXPECT_NE(metric(server.port(), "cache_blocks"), "0");
    EXPECT_NE(metric(server.port(), "cache_file_bytes"), "0");
  }
  const Server server(model_, options);
  ASSERT_NE(server.port(), 0);
  const Json later = ask(server.port(), text + "ROMEO:");
  EXPECT_EQ(later["choices"][0]["text"], first["choices"][0]["text"]);
  EXPECT_EQ(cached(later), cached(again));
}

}  // namespace
}  // namespace quern::test
