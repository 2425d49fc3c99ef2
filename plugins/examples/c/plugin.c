// Drops small orders, and makes of the others a message that Slack understands.
//
// There is no standard input or output in a plugin, so <stdio.h> stays out: it would ask for WASI. What is returned is
// freed by the bindings, so it comes from malloc; nothing else is freed, since an instance serves one event and is thrown
// away.

#include "bindings/branchline.h"
#include <stdlib.h>
#include <string.h>

// A part of a JSON text; `at` is NULL where there is none.
typedef struct {
  const char *at;
  size_t length;
} span;

// The value of a key of the outermost object, as it stands in the text: a number, a text with its quotes, an object.
static span member(branchline_string_t json, const char *key) {
  const char *text = (const char *)json.ptr;
  size_t depth = 0, start = 0;
  span name = {NULL, 0};
  bool wanted = false;
  for (size_t at = 0; at < json.len; at++) {
    char c = text[at];
    if (c == '"') {
      size_t opening = at++;
      while (at < json.len && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
      if (depth == 1 && !wanted) name = (span){text + opening + 1, at - opening - 1};
    } else if (depth == 1 && c == ':') {
      wanted = name.length == strlen(key) && memcmp(name.at, key, name.length) == 0;
      start = at + 1;
    } else if (c == '{' || c == '[') {
      depth++;
    } else if ((c == '}' || c == ']' || c == ',') && wanted && depth == 1) {
      while (start < at && strchr(" \t\r\n", text[start])) start++;
      while (start < at && strchr(" \t\r\n", text[at - 1])) at--;
      return (span){text + start, at - start};
    } else if (c == '}' || c == ']') {
      depth--;
    }
  }
  return (span){NULL, 0};
}

// Whether it is a whole number of at most 18 digits, and which.
static bool whole_number(span value, int64_t *number) {
  *number = 0;
  if (value.length < 1 || value.length > 18) return false;
  for (size_t at = 0; at < value.length; at++) {
    if (value.at[at] < '0' || value.at[at] > '9') return false;
    *number = *number * 10 + (value.at[at] - '0');
  }
  return true;
}

// Puts the parts together in memory of their own.
static branchline_string_t join(const span *parts, size_t count) {
  size_t length = 0;
  for (size_t at = 0; at < count; at++) length += parts[at].length;
  uint8_t *bytes = malloc(length ? length : 1), *end = bytes;
  for (size_t at = 0; at < count; at++) {
    memcpy(end, parts[at].at, parts[at].length);
    end += parts[at].length;
  }
  return (branchline_string_t){bytes, length};
}

static span literal(const char *text) { return (span){text, strlen(text)}; }

// What stands inside a JSON text as it is: an id from the envelope may hold a quote.
static span escaped(branchline_string_t text) {
  static const char hex[] = "0123456789abcdef";
  char *bytes = malloc(text.len * 6 + 1), *end = bytes;
  for (size_t at = 0; at < text.len; at++) {
    uint8_t c = text.ptr[at];
    if (c < 0x20) {
      memcpy(end, "\\u00", 4);
      end[4] = hex[c >> 4];
      end[5] = hex[c & 15];
      end += 6;
    } else {
      if (c == '"' || c == '\\') *end++ = '\\';
      *end++ = (char)c;
    }
  }
  return (span){bytes, (size_t)(end - bytes)};
}

// Returning false is the error in `error`.
bool exports_branchline_handle(branchline_event_t *event, branchline_verdict_t *verdict, branchline_error_t *error) {
  branchline_string_t config;
  branchline_plugin_host_config(&config);
  span limit = member(config, "atLeast"), price = member(event->payload, "amount");
  span currency = member(event->payload, "currency");
  int64_t at_least, amount;
  if (!whole_number(limit, &at_least) || !whole_number(price, &amount) || currency.length < 2) {
    branchline_string_dup(&error->code, "invalid-payload");
    branchline_string_dup(&error->message, "the amount is not a whole number, or there is no currency");
    error->retryable = false; // To the dead letters at once.
    return false;
  }
  if (amount < at_least) {
    span reason[] = {literal("an order below "), limit};
    verdict->tag = BRANCHLINE_PLUGIN_TYPES_VERDICT_DROP;
    verdict->val.drop = join(reason, 2);
    return true;
  }
  currency = (span){currency.at + 1, currency.length - 2}; // Without its quotes; its escapes stay as they are.
  span body[] = {literal("{\"text\":\"Order "), escaped(event->aggregate_id), literal(": "), price, literal(" "), currency,
                 literal("\"}")};
  verdict->tag = BRANCHLINE_PLUGIN_TYPES_VERDICT_SEND;
  verdict->val.send.headers = (branchline_plugin_types_list_header_t){NULL, 0};
  branchline_string_dup(&verdict->val.send.content_type, "application/json");
  verdict->val.send.body.tag = BRANCHLINE_PLUGIN_TYPES_BODY_TEXT;
  verdict->val.send.body.val.text = join(body, sizeof body / sizeof *body);
  return true;
}

// Asked once when the router reads its config. Returning false refuses it with the text.
bool exports_branchline_validate_config(branchline_string_t *config, branchline_string_t *error) {
  int64_t at_least;
  if (whole_number(member(*config, "atLeast"), &at_least)) return true;
  branchline_string_dup(error, "`atLeast` must be a whole number");
  return false;
}
