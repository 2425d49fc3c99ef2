#!lua flags=allow-oom
-- Acknowledges a claimed entry that can't be read, and keeps its bytes. It stays in the stream until it is trimmed.
-- KEYS: 1 events, 2 damaged   ARGV: 1 group, 2 id   -> 1
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if found[1] then
  local fields = found[1][2]
  redis.call('XADD', KEYS[2], '*', 'event', ARGV[2], unpack(fields))
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return 1
