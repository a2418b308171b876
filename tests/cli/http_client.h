// A client of HTTP that can misbehave: raw sockets, on 127.0.0.1 unless a unix socket is asked for.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern::test {

struct Reply {
  int status = 0;          // 0: the connection ended without an answer
  std::string head, body;  // the body without its chunks' frames
  // The value of a header; empty: not there.
  std::string header(std::string_view name) const;
};

class Connection {
 public:
  // Throws std::system_error.
  explicit Connection(int port);
  explicit Connection(const std::string& unix_path);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // False: the other end has closed.
  bool send(std::string_view bytes);
  // Reads until the bytes contain `text`, the end or 20 seconds; all that was read so far.
  const std::string& read_until(std::string_view text);
  // To the end of the connection.
  Reply read_reply();

 private:
  bool read_some();

  int fd_;
  std::string bytes_;
};

// One request on a connection of its own.
Reply request(int port, std::string_view method, std::string_view path, std::string_view body = {},
              const std::vector<std::string>& headers = {});
// POST of JSON.
Reply post(int port, std::string_view path, std::string_view json,
           const std::vector<std::string>& headers = {});

}  // namespace quern::test
