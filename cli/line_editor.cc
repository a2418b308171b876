#include "cli/line_editor.h"

#include <fmt/ranges.h>
#include <langinfo.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "cli/report.h"
#include "cli/text_input.h"
#include "quant/format_size.h"
#include "quant/machine/stop_signal.h"

#ifdef __SANITIZE_ADDRESS__
// libedit keeps copies of the names given with EL_ADDFN, and does not free them with the editor.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:wcsdup\n";
}  // NOLINT: LeakSanitizer's name
#endif

namespace quern {
namespace {

constexpr int kHistoryEntries = 1000;
// Asks the terminal to put marks around what is pasted, and no longer.
constexpr const char* kPasteMarksOn = "\033[?2004h";
constexpr const char* kPasteMarksOff = "\033[?2004l";
constexpr std::wstring_view kPasteEnd = L"\033[201~";

// Keys that terminals send as sequences (xterm's, linux's and rxvt's; xterm: ctlseqs, "PC-Style Function
// Keys"). Of one that is not bound libedit takes the rest for text: Ctrl and an arrow would type "5C".
struct Key {
  const char *sequence, *function;
};
constexpr Key kKeys[] = {
    {"\033[1~", "ed-move-to-beg"},  // Home
    {"\033[7~", "ed-move-to-beg"},
    {"\033[H", "ed-move-to-beg"},
    {"\033[1;5H", "ed-move-to-beg"},
    {"\033[4~", "ed-move-to-end"},  // End
    {"\033[8~", "ed-move-to-end"},
    {"\033[F", "ed-move-to-end"},
    {"\033[1;5F", "ed-move-to-end"},
    {"\033[3~", "ed-delete-next-char"},
    {"\033[3;5~", "em-delete-next-word"},
    {"\033[1;5C", "em-next-word"},  // with Ctrl; 3 is Alt
    {"\033[1;3C", "em-next-word"},
    {"\033[1;5D", "ed-prev-word"},
    {"\033[1;3D", "ed-prev-word"},
    {"\033[1;2C", "ed-next-char"},  // with Shift
    {"\033[1;2D", "ed-prev-char"},
    {"\033[1;2A", "ed-ignore"},
    {"\033[1;3A", "ed-ignore"},
    {"\033[1;5A", "ed-ignore"},
    {"\033[1;2B", "ed-ignore"},
    {"\033[1;3B", "ed-ignore"},
    {"\033[1;5B", "ed-ignore"},
    {"\033[2~", "ed-ignore"},  // Insert, PageUp, PageDown
    {"\033[5~", "ed-ignore"},
    {"\033[6~", "ed-ignore"},
    {"\033[15~", "ed-ignore"},  // F5 to F12
    {"\033[17~", "ed-ignore"},
    {"\033[18~", "ed-ignore"},
    {"\033[19~", "ed-ignore"},
    {"\033[20~", "ed-ignore"},
    {"\033[21~", "ed-ignore"},
    {"\033[23~", "ed-ignore"},
    {"\033[24~", "ed-ignore"},
    {"\033[Z", "ed-ignore"},     // Shift and Tab
    {"\033[201~", "ed-ignore"},  // the end of a paste that Ctrl-C cut short
};

void ask_for_paste_marks(bool on) {
  if (terminal_knows_sequences()) std::fputs(on ? kPasteMarksOn : kPasteMarksOff, stderr);
}

std::string_view typed(EditLine* editor) {
  const LineInfo* line = el_line(editor);
  return {line->buffer, static_cast<size_t>(line->lastchar - line->buffer)};
}

void clear_typed(EditLine* editor) {
  const LineInfo* line = el_line(editor);
  el_cursor(editor, static_cast<int>(line->lastchar - line->cursor));
  el_deletestr(editor, static_cast<int>(typed(editor).size()));
}

// Newlines as text has them (terminals paste carriage returns), no other control characters.
std::wstring cleaned(std::wstring_view pasted) {
  std::wstring text;
  for (size_t i = 0; i < pasted.size(); ++i) {
    const wchar_t c = pasted[i];
    if (c == L'\r' && i + 1 < pasted.size() && pasted[i + 1] == L'\n') continue;
    if (c == L'\r')
      text += L'\n';
    else if (c >= 0x20 || c == L'\n' || c == L'\t')
      text += c;
  }
  return text;
}

}  // namespace

LineEditor::LineEditor(const LineReaderOptions& options) : options_(options) {
  // libedit counts characters by the locale; text is UTF-8 whatever that says.
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
  restore_terminal_on_exit(terminal_knows_sequences() ? kPasteMarksOff : "");
  editor_ = el_init("quern", stdin, stderr, stderr);  // stdout is for answers
  history_ = history_init();
  QUERN_CHECK(editor_ != nullptr && history_ != nullptr);
  history(history_, &event_, H_SETSIZE, kHistoryEntries);
  history(history_, &event_, H_SETUNIQUE, 1);
  if (!options_.history_path.empty()) history(history_, &event_, H_LOAD, options_.history_path.c_str());

  el_set(editor_, EL_CLIENTDATA, this);
  el_set(editor_, EL_PROMPT, &LineEditor::prompt);
  el_set(editor_, EL_EDITOR, "emacs");
  el_set(editor_, EL_HIST, &::history, history_);
  el_set(editor_, EL_ADDFN, "quern-complete", "Complete a command", &LineEditor::on_tab);
  el_set(editor_, EL_ADDFN, "quern-interrupt", "Clear the line, or leave", &LineEditor::on_interrupt);
  el_set(editor_, EL_ADDFN, "quern-suspend", "Stop the process", &LineEditor::on_suspend);
  el_set(editor_, EL_ADDFN, "quern-paste", "Take what is pasted", &LineEditor::on_paste);
  // While a line is edited these keys are the editor's, not the terminal's.
  el_set(editor_, EL_SETTY, "-d", "-isig", nullptr);
  el_set(editor_, EL_BIND, "^I", "quern-complete", nullptr);
  el_set(editor_, EL_BIND, "^C", "quern-interrupt", nullptr);
  el_set(editor_, EL_BIND, "^Z", "quern-suspend", nullptr);
  el_set(editor_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_set(editor_, EL_BIND, "\033[200~", "quern-paste", nullptr);
  for (const Key& key : kKeys) el_set(editor_, EL_BIND, key.sequence, key.function, nullptr);
  el_source(editor_, nullptr);  // ~/.editrc has the last word
}

LineEditor::~LineEditor() {
  if (!options_.history_path.empty()) {
    const mode_t mask = umask(077);  // what people write is theirs
    history(history_, &event_, H_SAVE, options_.history_path.c_str());
    umask(mask);
  }
  history_end(history_);
  el_end(editor_);
}

LineEditor& LineEditor::self(EditLine* editor) {
  void* data = nullptr;
  el_get(editor, EL_CLIENTDATA, &data);
  return *static_cast<LineEditor*>(data);
}

char* LineEditor::prompt(EditLine* editor) { return self(editor).prompt_.data(); }

std::optional<std::string> LineEditor::read(bool continued) {
  prompt_ = continued ? ". " : options_.prompt;
  continued_ = continued;
  abandoned_ = asked_to_leave_ = false;
  el_resize(editor_);
  // Left to itself libedit shows the prompt first and takes the terminal's keys after: a Ctrl-D between the
  // two would be the terminal's, and reach the editor as a NUL.
  el_set(editor_, EL_PREP_TERM, 1);
  ask_for_paste_marks(true);
  int n_bytes = 0;
  const char* line = el_gets(editor_, &n_bytes);
  ask_for_paste_marks(false);
  if (line == nullptr || n_bytes <= 0) return std::nullopt;
  std::string message(line, static_cast<size_t>(n_bytes));
  if (message.ends_with('\n')) message.pop_back();
  if (message.size() > kMaxTextBytes)
    fail(ErrorCode::kResource, "a message holds more than {}, the most that is read as text",
         format_size(kMaxTextBytes));
  remember(message);
  return message;
}

void LineEditor::remember(const std::string& message) {
  if (!message.empty()) history(history_, &event_, H_ENTER, message.c_str());
}

// Commands at the start of the line; file names behind one.
unsigned char LineEditor::on_tab(EditLine* editor, int key) {
  const LineEditor& me = self(editor);
  const LineInfo* line = el_line(editor);
  const std::string before(line->buffer, static_cast<size_t>(line->cursor - line->buffer));
  if (!before.starts_with('/')) return CC_ERROR;
  if (before.find(' ') != before.npos) return _el_fn_complete(editor, key);
  std::vector<std::string> matches;
  for (const std::string& command : me.options_.commands)
    if (command.starts_with(before)) matches.push_back(command);
  if (matches.empty()) return CC_ERROR;
  std::string common = matches.front();
  for (const std::string& match : matches) {
    const auto [end, ignored] = std::mismatch(common.begin(), common.end(), match.begin(), match.end());
    common.erase(end, common.end());
  }
  if (matches.size() == 1) common += ' ';
  if (common.size() > before.size()) {
    el_insertstr(editor, common.c_str() + before.size());
    return CC_REFRESH;
  }
  std::fprintf(stderr, "\n%s\n", fmt::format("{}", fmt::join(matches, "  ")).c_str());
  return CC_REDISPLAY;
}

unsigned char LineEditor::on_interrupt(EditLine* editor, int) {
  LineEditor& me = self(editor);
  if (!typed(editor).empty()) {
    clear_typed(editor);
    me.asked_to_leave_ = false;
    if (!me.continued_) return CC_REFRESH;
  }
  if (me.continued_) {
    me.abandoned_ = true;
    std::fputs("\n", stderr);
    return CC_NEWLINE;
  }
  if (me.asked_to_leave_) return CC_EOF;
  me.asked_to_leave_ = true;
  std::fputs("\nCtrl-C again leaves\n", stderr);
  return CC_REDISPLAY;
}

unsigned char LineEditor::on_suspend(EditLine* editor, int) {
  ask_for_paste_marks(false);
  el_set(editor, EL_PREP_TERM, 0);
  kill(0, SIGTSTP);  // the whole job, as the terminal would
  el_set(editor, EL_PREP_TERM, 1);
  ask_for_paste_marks(true);
  return CC_REDISPLAY;
}

unsigned char LineEditor::on_paste(EditLine* editor, int) {
  self(editor).asked_to_leave_ = false;
  std::wstring text;  // el_getc gives nothing beyond ASCII
  wchar_t c = 0;
  while (!text.ends_with(kPasteEnd) && text.size() < kMaxTextBytes) {
    if (el_wgetc(editor, &c) != 1) return CC_EOF;
    text += c;
  }
  if (text.ends_with(kPasteEnd)) text.resize(text.size() - kPasteEnd.size());
  text = cleaned(text);
  if (!text.empty() && el_winsertstr(editor, text.c_str()) != 0) {
    std::fputs("\nthe pasted text is too long for one message: save it and give it with -f\n", stderr);
    return CC_REDISPLAY;
  }
  return CC_REFRESH;
}

}  // namespace quern
