#include "modules/hub/pickle.h"

#include <bit>
#include <cstring>
#include <map>

#include "modules/hub/atomic_file.h"
#include "modules/hub/pickle_build.h"

namespace cosmos::modules {
namespace {

using Kind = PickleValue::Kind;

constexpr std::size_t kMaxBytes = 256u << 20, kMaxValues = 4'000'000, kMaxDepth = 100,
                      kMaxCopied = 64u << 20;  // texts and items that calls copy from the memo

enum Op : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kDictOp = 'd',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kListOp = 'l',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTupleOp = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kBinFloat = 'G',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kLong4 = 0x8b,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& where, const PickleOptions& options)
      : bytes_(bytes), where_(where), options_(options) {}

  Pickle run() {
    require(bytes_.size() >= 2 && static_cast<uint8_t>(bytes_[0]) == kProto, where_,
            ": does not begin as a pickle of protocol 2 or later");
    while (true) {
      require(position_ < kMaxBytes, where_, ": a pickle beyond ", kMaxBytes >> 20, " MiB");
      const auto op = number<uint8_t>();
      if (op == kStop) break;
      step(op);
    }
    require(stack_.size() == 1 && marks_.empty(), where_, ": ends with ", stack_.size(),
            " values, expected one");
    pickle_.root = stack_[0];
    pickle_.bytes = position_;
    return std::move(pickle_);
  }

 private:
  template <typename Number>
  Number number() {
    Number value = 0;
    const std::string_view raw = take(sizeof value);
    std::memcpy(&value, raw.data(), sizeof value);
    return value;
  }

  std::string_view take(uint64_t count) {
    require(count <= bytes_.size() - position_, where_, ": the pickle is cut off");
    const std::string_view taken = bytes_.substr(position_, count);
    position_ += count;
    return taken;
  }

  PickleValue* add(PickleValue value) {
    require(pickle_.arena.size() < kMaxValues, where_, ": a pickle of more than ", kMaxValues,
            " values");
    return &pickle_.arena.emplace_back(std::move(value));
  }
  void push(PickleValue value) { stack_.push_back(add(std::move(value))); }
  void push_text(Kind kind, uint64_t size) {
    push({.kind = kind, .text = std::string(take(size))});
  }

  PickleValue* pop() {
    require(!stack_.empty() && (marks_.empty() || stack_.size() > marks_.back()), where_,
            ": the pickle takes more values than it has");
    PickleValue* value = stack_.back();
    stack_.pop_back();
    return value;
  }
  PickleValue* top() {
    PickleValue* value = pop();
    stack_.push_back(value);
    return value;
  }
  std::vector<PickleValue*> pop_to_mark() {
    require(!marks_.empty(), where_, ": a mark is missing");
    std::vector<PickleValue*> values(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()),
                                     stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return values;
  }
  void push_tuple(std::size_t size) {
    std::vector<PickleValue*> items(size);
    for (std::size_t i = size; i-- > 0;) items[i] = pop();
    push({.kind = Kind::kTuple, .items = std::move(items)});
  }

  void put(std::size_t index) {
    require(index < kMaxValues, where_, ": memo ", index, " is out of reach");
    if (index >= memo_.size()) memo_.resize(index + 1, nullptr);
    memo_[index] = top();
    memo_count_ = std::max(memo_count_, index + 1);
  }
  void get(std::size_t index) {
    require(index < memo_.size() && memo_[index] != nullptr, where_, ": memo ", index,
            " is not set");
    stack_.push_back(memo_[index]);
  }

  void extend(const std::vector<PickleValue*>& items, Kind kind) {
    PickleValue* container = top();
    require(container->is(kind) && (kind == Kind::kList || items.size() % 2 == 0), where_,
            ": items for ", container->describe());
    container->items.insert(container->items.end(), items.begin(), items.end());
  }

  void push_integer(uint64_t size) {
    require(size <= 8, where_, ": an integer of ", size, " bytes");
    const std::string_view raw = take(size);
    uint64_t value = size > 0 && (raw[size - 1] & 0x80) ? ~0ull : 0;  // the sign reaches up
    std::memcpy(&value, raw.data(), size);
    push({.kind = Kind::kInteger, .integer = static_cast<int64_t>(value)});
  }

  std::string line() {
    const std::size_t end = bytes_.find('\n', position_);
    require(end != std::string_view::npos && end - position_ < 1000, where_,
            ": a name without an end");
    const std::string text(bytes_.substr(position_, end - position_));
    position_ = end + 1;
    return text;
  }

  void push_class(const std::string& module, const std::string& name) {
    push(find_pickle_class(module, name, where_, options_));
  }

  void step(uint8_t op);
  void step_number(uint8_t op);
  void step_object(uint8_t op);

  std::string_view bytes_;
  const std::string& where_;
  const PickleOptions& options_;
  std::size_t position_ = 0, memo_count_ = 0, copied_ = 0;
  Pickle pickle_;
  std::vector<PickleValue*> stack_, memo_;
  std::vector<std::size_t> marks_;
};

// Containers, the stack and the memo.
void Reader::step(uint8_t op) {
  switch (op) {
    case kMark:
      return marks_.push_back(stack_.size());
    case kPop:
      return void(pop());
    case kPopMark:
      return void(pop_to_mark());
    case kDup:
      return stack_.push_back(top());
    case kEmptyDict:
      return push({.kind = Kind::kDict});
    case kEmptyList:
      return push({.kind = Kind::kList});
    case kEmptyTuple:
      return push({.kind = Kind::kTuple});
    case kTuple1:
      return push_tuple(1);
    case kTuple2:
      return push_tuple(2);
    case kTuple3:
      return push_tuple(3);
    case kTupleOp:
      return push({.kind = Kind::kTuple, .items = pop_to_mark()});
    case kListOp:
      return push({.kind = Kind::kList, .items = pop_to_mark()});
    case kDictOp: {
      auto items = pop_to_mark();
      push({.kind = Kind::kDict});
      return extend(items, Kind::kDict);
    }
    case kAppend: {
      PickleValue* item = pop();
      return extend({item}, Kind::kList);
    }
    case kAppends: {
      const auto items = pop_to_mark();
      return extend(items, Kind::kList);
    }
    case kSetItem: {
      PickleValue* value = pop();
      PickleValue* key = pop();
      return extend({key, value}, Kind::kDict);
    }
    case kSetItems: {
      const auto items = pop_to_mark();
      return extend(items, Kind::kDict);
    }
    case kBinPut:
      return put(number<uint8_t>());
    case kLongBinPut:
      return put(number<uint32_t>());
    case kMemoize:
      return put(memo_count_);
    case kBinGet:
      return get(number<uint8_t>());
    case kLongBinGet:
      return get(number<uint32_t>());
    default:
      return step_number(op);
  }
}

// Numbers, texts and bytes.
void Reader::step_number(uint8_t op) {
  switch (op) {
    case kNone:
      return push({});
    case kNewTrue:
      return push({.kind = Kind::kBool, .integer = 1});
    case kNewFalse:
      return push({.kind = Kind::kBool});
    case kBinInt:
      return push_integer(4);
    case kBinInt1:
      return push({.kind = Kind::kInteger, .integer = number<uint8_t>()});
    case kBinInt2:
      return push({.kind = Kind::kInteger, .integer = number<uint16_t>()});
    case kLong1:
      return push_integer(number<uint8_t>());
    case kLong4:
      return push_integer(number<uint32_t>());
    case kBinFloat: {
      const auto raw = std::bit_cast<double>(__builtin_bswap64(number<uint64_t>()));
      return push({.kind = Kind::kReal, .real = raw});
    }
    case kBinUnicode:
      return push_text(Kind::kText, number<uint32_t>());
    case kShortBinUnicode:
      return push_text(Kind::kText, number<uint8_t>());
    case kBinUnicode8:
      return push_text(Kind::kText, number<uint64_t>());
    case kBinString:
      return push_text(Kind::kText, number<uint32_t>());
    case kShortBinString:
      return push_text(Kind::kText, number<uint8_t>());
    case kBinBytes:
      return push_text(Kind::kBytes, number<uint32_t>());
    case kShortBinBytes:
      return push_text(Kind::kBytes, number<uint8_t>());
    case kBinBytes8:
      return push_text(Kind::kBytes, number<uint64_t>());
    default:
      return step_object(op);
  }
}

// Names and what is built from them.
void Reader::step_object(uint8_t op) {
  switch (op) {
    case kProto:
      return require(number<uint8_t>() <= 5, where_, ": a pickle of a protocol beyond 5");
    case kFrame:
      return void(number<uint64_t>());
    case kGlobal: {
      const std::string module = line();
      return push_class(module, line());
    }
    case kStackGlobal: {
      const PickleValue* name = pop();
      const PickleValue* module = pop();
      require(name->is(Kind::kText) && module->is(Kind::kText), where_, ": a class without a name");
      return push_class(module->text, name->text);
    }
    case kNewObj:
    case kReduce: {
      const PickleValue* arguments = pop();
      const PickleValue* what = pop();
      PickleValue made = build_pickle_object(*what, *arguments, where_);
      copied_ += made.items.size() * sizeof(PickleValue*) + made.text.size();
      require(copied_ <= kMaxCopied, where_, ": a pickle that copies itself beyond all measure");
      return push(std::move(made));
    }
    case kBuild: {
      PickleValue* state = pop();
      return set_pickle_state(*top(), state, where_);
    }
    case kBinPersId:
      return push(build_pickle_storage(*pop(), where_));
    default:
      fail(where_, ": the pickle holds opcode ", static_cast<int>(op),
           ", which torch.save never writes; refused");
  }
}

// Depth first without recursion: a value that is met again while it is open contains itself.
void check_nesting(const PickleValue* root, const std::string& where) {
  enum State : int8_t { kOpen = 1, kDone = 2 };
  std::map<const PickleValue*, State> state;
  struct Frame {
    const PickleValue* value;
    std::size_t next = 0;
  };
  std::vector<Frame> path = {{root}};
  state[root] = kOpen;
  while (!path.empty()) {
    Frame& frame = path.back();
    if (frame.next == frame.value->items.size()) {
      state[frame.value] = kDone;
      path.pop_back();
      continue;
    }
    const PickleValue* item = frame.value->items[frame.next++];
    if (item->items.empty()) continue;
    const auto [found, added] = state.emplace(item, kOpen);
    require(added || found->second == kDone, where, ": ", item->describe(), " contains itself");
    if (!added) continue;
    require(path.size() < kMaxDepth, where, ": containers nested beyond ", kMaxDepth);
    path.push_back({item});
  }
}

}  // namespace

Pickle read_pickle(std::string_view bytes, const std::string& where, const PickleOptions& options) {
  Pickle pickle = Reader(bytes, where, options).run();
  check_nesting(pickle.root, where);
  return pickle;
}

const PickleValue* PickleValue::find(const std::string& key) const {
  if (kind == Kind::kRecord) return items.empty() ? nullptr : items[0]->find(key);
  if (kind != Kind::kDict) return nullptr;
  for (std::size_t i = 0; i + 1 < items.size(); i += 2)
    if (items[i]->is(Kind::kText) && items[i]->text == key) return items[i + 1];
  return nullptr;
}

std::string PickleValue::describe() const {
  switch (kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return integer ? "True" : "False";
    case Kind::kInteger:
      return "the integer " + std::to_string(integer);
    case Kind::kReal:
      return "the number " + std::to_string(real);
    case Kind::kText:
      return "the text " + printable(text);
    case Kind::kBytes:
      return std::to_string(text.size()) + " bytes";
    case Kind::kList:
      return "a list of " + std::to_string(items.size());
    case Kind::kTuple:
      return "a tuple of " + std::to_string(items.size());
    case Kind::kDict:
      return "a dict of " + std::to_string(items.size() / 2);
    case Kind::kRecord:
      return "a record " + printable(text);
    case Kind::kClass:
      return "the class " + printable(text);
    case Kind::kDtype:
      return "a dtype";
    case Kind::kStorage:
      return "a storage";
    case Kind::kTensor:
      return "a tensor";
  }
  return "";
}

}  // namespace cosmos::modules
