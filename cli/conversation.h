// A conversation that is kept as text and fits a context.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/chat_format.h"

namespace quern {

// A turn is a user's message and its answer. Ids are made anew from the text every time, so that they are
// what the chat format says whatever the model generated.
class Conversation {
 public:
  using Encode = std::function<std::vector<TokenId>(std::span<const ChatMessage>)>;

  // context: positions; reserve: those to keep free for an answer.
  Conversation(Encode encode, uint64_t context, uint64_t reserve)
      : encode_(std::move(encode)), context_(context), reserve_(reserve) {}

  void set_system(std::string text) { system_ = std::move(text); }
  const std::string& system() const { return system_; }

  // The ids to feed for a new message; it counts as asked until answer() or withdraw(). Whole old turns are
  // dropped, oldest first, until the ids leave `reserve` positions free; the message itself is never dropped,
  // and nothing is dropped for one that does not fit the context by itself.
  // n_dropped: how many. Throws what the chat format refuses.
  std::vector<TokenId> ask(std::string message, size_t* n_dropped);
  void answer(std::string text);  // closes the turn
  void withdraw();                // takes back the message that was asked

  bool undo();  // drops the last turn; false when there is none
  // The same, for the message to be asked again; absent when there is none.
  std::optional<std::string> take_back();
  // Starts anew from messages: a system message at most, then users and answers in turn. Throws kMalformed
  // for any other order, and leaves the conversation as it was.
  void load(std::span<const ChatMessage> messages);
  void reset() { turns_.clear(); }
  size_t n_turns() const { return turns_.size(); }
  // The last turn's message; absent when there is none.
  std::optional<std::string> last_message() const {
    return turns_.empty() ? std::nullopt : std::optional(turns_.back().user);
  }
  // System text first, when there is one.
  std::vector<ChatMessage> messages() const;

 private:
  struct Turn {
    std::string user, assistant;
    bool answered = false;
  };

  Encode encode_;
  uint64_t context_, reserve_;
  std::string system_;
  std::vector<Turn> turns_;
};

}  // namespace quern
