// A socket that whoever started the process has opened for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace quern {

struct InheritedSocket {
  int fd;               // listens; the process owns it from now on
  std::string address;  // numeric; empty: a unix socket
  uint16_t port = 0;
};

// By LISTEN_PID and LISTEN_FDS, as systemd's socket activation has it (sd_listen_fds(3)); nothing where they
// are absent or meant for another process. Takes them out of the environment. Throws kUsage for more than one
// socket, and for one that takes no connections.
std::optional<InheritedSocket> take_inherited_socket();

}  // namespace quern
